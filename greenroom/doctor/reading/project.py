"""The meaning of the files: functions, which of them requests run, what names stand for, which objects requests share.

Names are resolved as far as the text says: `session.get` with `session = requests.Session()` at module level is
`requests.Session().get`. Functions are followed by name: a call `mailer.send()` leads to every own method `send`.
"""

import ast
from collections.abc import Container, Iterator
from functools import cached_property

from .functions import Binding, Function, owner_of
from .names import ALL_VIEWS, COMMON, NOT_VIEWS, VERBS, VIEW_BASES, VIEW_DECORATORS, decorator_name, last
from .sources import FUNCTIONS, Source, Sources

MOST_STEPS = 20_000


class Project:
    def __init__(self, sources: Sources, entry: str = "", view_places: Container[str] = ()) -> None:
        self.sources = sources
        self.entry = entry  # a factory's name, or the application object's
        self.view_places = view_places  # `file:line` of those that the imported application has
        self.functions: list[Function] = []
        self.classes: dict[str, list[tuple[Source, ast.ClassDef]]] = {}
        self.module_values: dict[str, dict[str, Binding]] = {}
        self.attribute_values: dict[tuple[str, str], Binding] = {}  # (class, attribute) -> what it is given
        self.top_nodes: dict[str, list[ast.AST]] = {}
        for source in sources:
            self._collect(source)
        self.by_name: dict[str, list[Function]] = {}
        for function in self.functions:
            self.by_name.setdefault(function.name, []).append(function)

    def _collect(self, source: Source) -> None:
        values = self.module_values.setdefault(source.module, {})
        top = self.top_nodes.setdefault(source.module, [])

        def walk(node: ast.AST, function: Function | None, owner: ast.ClassDef | None) -> None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, FUNCTIONS):
                    inner = Function(source, child, child.name, owner, function)
                    self.functions.append(inner)
                    for decorator in child.decorator_list:
                        enter(decorator, function, owner)
                    for default in [*child.args.defaults, *[one for one in child.args.kw_defaults if one is not None]]:
                        enter(default, function, owner)
                    for statement in child.body:
                        enter(statement, inner, None)
                elif isinstance(child, ast.ClassDef):
                    self.classes.setdefault(child.name, []).append((source, child))
                    for part in [*child.decorator_list, *child.bases]:
                        enter(part, function, owner)
                    for statement in child.body:
                        enter(statement, function, child)
                else:
                    enter(child, function, owner)

        def enter(node: ast.AST, function: Function | None, owner: ast.ClassDef | None) -> None:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                walk(ast.Module([node], []), function, owner)
                return
            (function.nodes if function is not None else top).append(node)
            if function is not None:
                if isinstance(node, ast.Call):
                    function.calls.append(node)
                if isinstance(node, ast.Global):
                    function.globals |= set(node.names)
            self._bind(source, values, node, function, owner)
            walk(node, function, owner)

        walk(source.tree, None, None)

    def _bind(
        self,
        source: Source,
        values: dict[str, Binding],
        node: ast.AST,
        function: Function | None,
        owner: ast.ClassDef | None,
    ) -> None:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.NamedExpr):
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.With | ast.AsyncWith):
            pairs = [(item.optional_vars, item.context_expr) for item in node.items if item.optional_vars is not None]
        for target, value in pairs:
            if isinstance(target, ast.Name):
                is_global = function is not None and target.id in function.globals
                held = values.get(target.id)
                if is_global and held is not None and isinstance(held.value, ast.Constant):
                    values[target.id] = Binding(source, function, target.id, value, target.lineno)
                elif function is not None and not is_global:
                    function.local_values[target.id] = value
                elif owner is not None:
                    self.attribute_values[(owner.name, target.id)] = Binding(
                        source, None, target.id, value, target.lineno, owner.name
                    )
                elif target.id not in values or (function is None and not isinstance(value, ast.Constant)):
                    # `x = None` beside `x = make()` says nothing of what x is.
                    values[target.id] = Binding(source, function, target.id, value, target.lineno)
            elif (
                isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
                and function is not None
                and (cls := owner_of(function)) is not None
            ):
                self.attribute_values.setdefault(
                    (cls.name, target.attr), Binding(source, function, target.attr, value, target.lineno, cls.name)
                )

    # Names.

    def lookup(self, name: str, source: Source, function: Function | None) -> Binding | None:
        """Return the value of `name` as seen from `function`; also in the own module that it was imported from."""
        scope = function
        while scope is not None:
            if name in scope.local_values and name not in scope.globals:
                value = scope.local_values[name]
                return Binding(source, scope, name, value, value.lineno)
            if name in scope.parameters:
                return None
            scope = scope.outer
        found = self.module_values.get(source.module, {}).get(name)
        if found is not None:
            return found
        dotted = source.imports.get(name, "")
        module, _, attribute = dotted.rpartition(".")
        return self.module_values.get(module, {}).get(attribute)

    def binding(self, node: ast.expr, source: Source, function: Function | None) -> Binding | None:
        """Return the value that a name, `self.attribute`, or attribute of an own module was assigned."""
        if isinstance(node, ast.Name):
            return self.lookup(node.id, source, function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("self", "cls") and function is not None:
                cls = owner_of(function)
                return self.attribute_values.get((cls.name, node.attr)) if cls is not None else None
            module = source.imports.get(node.value.id, "")
            if module in self.module_values:
                return self.module_values[module].get(node.attr)
            held = self.lookup(node.value.id, source, function)
            if held is not None and isinstance(held.value, ast.Call):
                cls_name = last(self.dotted(held.value.func, held.source, held.function))
                return self.attribute_values.get((cls_name, node.attr))
            return self.attribute_values.get((node.value.id, node.attr))
        return None

    def dotted(self, node: ast.AST, source: Source, function: Function | None, depth: int = 0) -> str:
        """`requests.get`, `requests.Session().get`, `flask.request.args.get`; "" where nothing is known."""
        if depth > 12:
            return ""
        if isinstance(node, ast.Name):
            if node.id in source.imports and not self._is_local(node.id, function):
                return source.imports[node.id]
            found = self.lookup(node.id, source, function)
            if found is not None and isinstance(found.value, ast.Call | ast.Attribute | ast.Name):
                if isinstance(found.value, ast.Name) and found.value.id == node.id:
                    return node.id
                return self.dotted(found.value, found.source, found.function, depth + 1) or node.id
            return node.id
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found = self.binding(node, source, function)
                if found is not None and isinstance(found.value, ast.Call | ast.Attribute | ast.Name):
                    return self.dotted(found.value, found.source, found.function, depth + 1)
            base = self.dotted(node.value, source, function, depth + 1)
            return f"{base}.{node.attr}" if base else node.attr
        if isinstance(node, ast.Call):
            base = self.dotted(node.func, source, function, depth + 1)
            return f"{base}()" if base else ""
        if isinstance(node, ast.Await):
            return self.dotted(node.value, source, function, depth + 1)
        return ""

    @staticmethod
    def _is_local(name: str, function: Function | None) -> bool:
        while function is not None:
            if name in function.local_values or name in function.parameters:
                return True
            function = function.outer
        return False

    def called(self, call: ast.Call, source: Source, function: Function | None) -> str:
        return self.dotted(call.func, source, function)

    # Which functions requests run.

    @cached_property
    def views(self) -> list[Function]:
        return [function for function in self.functions if self._is_view(function)]

    def _is_view(self, function: Function) -> bool:
        names = [decorator_name(one) for one in function.node.decorator_list]
        if any(name.rpartition(".")[2] in NOT_VIEWS for name in names):
            return False
        if any("." in name and name.rpartition(".")[2] in VIEW_DECORATORS for name in names):
            return True
        if any(name.endswith((".on", ".event")) and "socketio" in name.lower() for name in names):
            return True
        if function.name in self._named_views and function.owner is None:
            return True
        first = function.node.decorator_list[0] if function.node.decorator_list else function.node
        if f"{function.source.shown}:{first.lineno}" in self.view_places:
            return True
        if self._has_dash and any(last(name) == "callback" for name in names):
            return True
        parameters = [argument.arg for argument in function.node.args.args]
        if parameters[-2:] == ["environ", "start_response"]:
            return True
        if function.owner is None and parameters[:1] == ["request"] and self.has_django:
            return True
        if function.owner is None:
            return False
        bases = self._bases(function.owner)
        return (function.name in VERBS and not bases.isdisjoint(VIEW_BASES)) or (
            function.name[0] != "_" and not bases.isdisjoint(ALL_VIEWS)
        )

    @cached_property
    def _families(self) -> dict[str, set[str]]:
        """Names of the own classes that one object may be of together with the class: all that some class inherits."""
        found: dict[str, set[str]] = {}
        for name, definitions in self.classes.items():
            together = {name}.union(*(self._bases(cls) for _, cls in definitions)) & self.classes.keys()
            for one in together:
                found.setdefault(one, set()).update(together)
        return found

    def _bases(self, cls: ast.ClassDef, depth: int = 0) -> set[str]:
        """Names of the classes that a class is made from, also through own ones."""
        names = {last(ast.unparse(base)) for base in cls.bases}
        inner = [one for name in names for _, one in self.classes.get(name, []) if one is not cls and depth < 5]
        return names.union(*(self._bases(one, depth + 1) for one in inner))

    @cached_property
    def has_django(self) -> bool:
        return any(name.startswith("django") for source in self.sources for name in source.imports.values())

    @cached_property
    def _has_dash(self) -> bool:
        return any(name.partition(".")[0] == "dash" for source in self.sources for name in source.imports.values())

    @cached_property
    def _named_views(self) -> set[str]:
        """Functions that `add_url_rule` and its like are given by name."""
        found: set[str] = set()
        for source in self.sources:
            for node in ast.walk(source.tree):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in ("add_url_rule", "before_request", "after_request", "teardown_request", "path", "re_path"):
                    given = [*node.args, *[keyword.value for keyword in node.keywords]]
                    found |= {last(ast.unparse(one)) for one in given if isinstance(one, ast.Name | ast.Attribute)}
        return found

    @cached_property
    def in_request(self) -> set[Function]:
        """Views, and all own functions that they may come to."""
        return self.reached_from(self.views)

    def reached_from(self, first: list[Function]) -> set[Function]:
        seen: set[Function] = set(first)
        waiting = list(first)
        steps = 0
        while waiting and steps < MOST_STEPS:
            steps += 1
            function = waiting.pop()
            for target in self.targets(function):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    def targets(self, function: Function) -> Iterator[Function]:
        """Own functions that `function` calls, or hands to somebody else (`Thread(target=...)`), by name."""
        # Classes that are asked about: they are not called.
        asked = {
            id(one)
            for call in function.calls
            if isinstance(call.func, ast.Name) and call.func.id in ("super", "isinstance", "issubclass")
            for argument in call.args
            for one in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
            if isinstance(one, ast.Name)
        }
        for node in function.nodes:
            if id(node) in asked:
                continue
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                if node.id not in function.local_values and node.id not in function.parameters:
                    yield from self._named(node.id, function)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield from self._method(node, function)
        for decorator in function.node.decorator_list:
            # The decorator itself runs with the import; requests run what it returns.
            is_made = isinstance(decorator, ast.Call)
            name = decorator.func if isinstance(decorator, ast.Call) else decorator
            for made in self._named(name.id, function) if isinstance(name, ast.Name) else ():
                yield from (
                    one for one in self.functions if made is (one.outer and one.outer.outer if is_made else one.outer)
                )

    def _named(self, name: str, function: Function) -> Iterator[Function]:
        dotted = function.source.imports.get(name)
        if dotted is not None:
            module, _, attribute = dotted.rpartition(".")
        else:
            module, attribute = function.source.module, name
        for one in self.by_name.get(attribute, []):
            if one.source.module == module and (one.owner is None):
                yield one
        classes = self.classes.get(attribute, [])
        # A class that a package gives on from a module of its own is known by its name alone.
        exact = [one for one in classes if one[0].module == module]
        for _, cls in exact or classes:
            yield from (one for one in self.functions if one.owner is cls and one.name == "__init__")

    def _method(self, node: ast.Attribute, function: Function) -> Iterator[Function]:
        candidates = self.by_name.get(node.attr, [])
        if not candidates:
            return
        if isinstance(node.value, ast.Name):
            module = function.source.imports.get(node.value.id)
            if module in self.module_values:
                yield from (one for one in candidates if one.source.module == module and one.owner is None)
                return
            if node.value.id in ("self", "cls"):
                owner = owner_of(function)
                family = self._families.get(owner.name, set()) if owner is not None else None
                yield from (
                    one for one in candidates if one.owner is not None and (family is None or one.owner.name in family)
                )
                return
        base = self.dotted(node.value, function.source, function)
        if base.endswith("()"):
            cls = last(base[:-2])
            if cls in self.classes:
                yield from (one for one in candidates if one.owner is not None and one.owner.name == cls)
                return
            if node.attr in COMMON or base.partition(".")[0] not in self.module_values:
                return
        if node.attr not in COMMON:
            yield from (one for one in candidates if one.owner is not None)

    def request_calls(self) -> Iterator[tuple[Function, ast.Call, str]]:
        """Each call in a function that requests run, with its dotted name."""
        for function in self.functions:
            if function in self.in_request:
                for call in function.calls:
                    yield function, call, self.called(call, function.source, function)

    def all_calls(self) -> Iterator[tuple[Source, Function | None, ast.Call, str]]:
        for source in self.sources:
            for node in self.top_nodes[source.module]:
                if isinstance(node, ast.Call):
                    yield source, None, node, self.called(node, source, None)
        for function in self.functions:
            for call in function.calls:
                yield function.source, function, call, self.called(call, function.source, function)

    def is_shared(self, binding: Binding | None) -> bool:
        """Whether all requests see the same object: it was made outside of what requests run."""
        if binding is None:
            return False
        if binding.function is None:
            return True
        if binding.owner:
            return binding.owner in self.shared_classes
        return binding.function not in self.in_request or binding.name in binding.function.globals

    @cached_property
    def shared_classes(self) -> set[str]:
        """Own classes that objects are made of outside of requests, and not within them."""
        made: set[str] = set()
        within: set[str] = set()
        for _, function, call, _ in self.all_calls():
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in self.classes:
                # Shared objects may well be made with the first use: `if client is None: client = Client()`.
                is_lazy = function is not None and any(
                    isinstance(node, ast.Assign)
                    and node.value is call
                    and any(isinstance(one, ast.Name) and one.id in function.globals for one in node.targets)
                    for node in function.nodes
                )
                (within if function in self.in_request and not is_lazy else made).add(name)
        return made - within
