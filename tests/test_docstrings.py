"""The `Args:` section of every public docstring names the parameters of the signature."""

import importlib
import inspect

import pytest

import tellapart as ta
from tellapart.runtime.options import arguments

FUNCTIONAL = ("losses", "label_losses", "tiled", "geometry", "mutual_information", "top_k")


def _functions():
    for name in ta.__all__:
        value = getattr(ta, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for method, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function
    for name in FUNCTIONAL:
        module = importlib.import_module(f"tellapart.functional.{name}")
        for function in vars(module).values():
            own = getattr(function, "__module__", None) == module.__name__
            if own and inspect.isfunction(function) and not function.__name__.startswith("_"):
                yield f"{name}.{function.__name__}", function


def _differences(function):
    parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
    return parameters ^ set(arguments(function.__doc__))


def test_the_public_functions_document_their_parameters():
    functions = dict(_functions())
    assert len(functions) > 80
    assert {"train", "Run.create", "losses.nt_xent"} <= set(functions)
    wrong = {name: lost for name, f in functions.items() if (lost := _differences(f))}
    assert not wrong


@pytest.mark.parametrize("section", ["", "Args:\n    a: one.\n    c: none.\n"])
def test_a_missing_or_superfluous_parameter_is_found(section):
    def function(a, b):
        pass

    function.__doc__ = f"Do.\n\n{section}"
    assert "b" in _differences(function)
