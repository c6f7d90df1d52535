"""The gunicorn worker class.

lifecycle -> listener, balance                          who accepts
          -> recycle                                    who is replaced, and when
          -> serving -> connection -> head, request     what came
                                   -> wire, response    what goes
                     -> timeouts                        who keeps us waiting
"""

from .lifecycle import GreenWorker

__all__ = ["GreenWorker"]
