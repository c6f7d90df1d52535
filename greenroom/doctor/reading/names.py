"""Names that mean something by themselves, and small questions about single nodes."""

import ast

VIEW_DECORATORS = (
    *("route", "get", "post", "put", "delete", "patch", "before_request", "after_request", "teardown_request"),
    *("before_app_request", "after_app_request", "teardown_appcontext", "context_processor", "app_context_processor"),
    *("errorhandler", "app_errorhandler", "url_value_preprocessor", "template_filter", "template_global", "websocket"),
    *("user_loader", "request_loader", "doc", "input", "output", "view_config", "api_view", "action"),
    *("expose", "app_template_filter", "app_template_global", "before_first_request"),
)
VIEW_BASES = ("MethodView", "View", "Resource", "TemplateView", "ListView", "APIView", "ViewSet", "SwaggerView")
# Functions that mostly run with the import, whoever may call them.
SETS_UP = ("__init__", "__new__", "__set_name__", "__init_subclass__", "init_app")
# Classes all of whose public methods requests run.
ALL_VIEWS = ("FlaskView", "ModelView", "AdminIndexView", "BaseView", "ModelRestApi")
VERBS = ("get", "post", "put", "delete", "patch", "head", "options", "dispatch_request", "list", "retrieve", "create")
NOT_VIEWS = ("command", "task", "shared_task", "on_after_configure", "fixture", "group", "cli")
# Methods with these names are mostly somebody else's: a call of one leads to an own method only of a known class.
COMMON = frozenset(
    "get set put post add append update pop items keys values join split close open read write run start stop send "
    "execute commit rollback query filter first all one delete patch format strip encode decode copy clear count "
    "index insert remove extend sort acquire release wait result submit map loads dumps info debug warning "
    "error register".split()
)


def last(dotted: str) -> str:
    return dotted.removesuffix("()").rpartition(".")[2]


def decorator_name(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def has_unpacking(call: ast.Call) -> bool:
    return any(one.arg is None for one in call.keywords) or any(isinstance(one, ast.Starred) for one in call.args)


def number(node: ast.expr | None) -> float | None:
    """A literal number; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    return None


def text(node: ast.AST | None) -> str:
    """A literal string, the beginning of an f-string, or the default in `os.environ.get("X", "...")`; else ""."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return text(node.values[0])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left)
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        return next((found for one in reversed(node.values) if (found := text(one))), "")
    if isinstance(node, ast.Call) and len(node.args) == 2 and last(ast.unparse(node.func)) in ("get", "getenv", "str"):
        return text(node.args[1])
    return ""
