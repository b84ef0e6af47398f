"""The modules `qt` and `ctk`: PySide6 with the manners of PythonQt, by which Slicer's Python reaches Qt.

Two manners matter. A Qt property is a Python attribute (`button.text`, not `button.text()`), while its setter
stays. And signals are connected by signature: `button.connect("clicked()", f)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

KEPT = {"layout", "parent", "children", "style", "sizeHint", "minimumSizeHint", "spacing", "singleShot"}
"""Properties that stay methods, for Qt itself calls them or they are no properties everywhere."""

_SIGNATURE = re.compile(r"^(\w+)\((.*)\)$")
_seen: set[type] = set()


def mannered(cls: type) -> type:
    """A Qt class, with the manners, and so its bases."""
    for one in reversed(cls.__mro__):
        if one in _seen or not isinstance(getattr(one, "staticMetaObject", None), QtCore.QMetaObject):
            continue
        _seen.add(one)
        _properties(one)
        if one is QtCore.QObject:
            _signals(one)
    return cls


def _properties(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name in KEPT or name == "objectName":
            continue
        getter = next((vars(one)[name] for one in cls.__mro__ if name in vars(one)), None)
        if isinstance(getter, property | QtCore.Property) or (getter is not None and not callable(getter)):
            continue
        setattr(cls, name, _property(name))
    if cls is QtCore.QObject:
        cls.name = property(lambda one: one.property("objectName"), lambda one, to: one.setObjectName(to))
        cls.objectName = property(
            lambda one: one.property("objectName"), lambda one, to: one.setObjectName(to)
        )
        cls.className = lambda one: one.metaObject().className()
        cls.delete = lambda one: one.deleteLater()


def _property(name: str) -> property:
    def set_value(one: QtCore.QObject, value: object) -> None:
        if not one.setProperty(name, value):
            raise TypeError(f"{type(one).__name__}.{name} can't be {value!r}")

    return property(lambda one: one.property(name), set_value)


def _signals(cls: type) -> None:
    plain = cls.__getattribute__

    def getattribute(one: QtCore.QObject, name: str) -> Any:
        found = plain(one, name)
        if name in ("connect", "disconnect"):
            ours = _connect if name == "connect" else _disconnect

            def either(*values: Any) -> Any:
                by_text = len(values) == 2 and isinstance(values[0], str)
                return ours(one, *values) if by_text else found(*values)

            return either
        return found

    cls.__getattribute__ = getattribute


errors: list[BaseException] = []
"""What slots raised; Qt would only print it."""

_connected: dict[tuple[int, str, Any], Callable[[], object]] = {}


def _connect(one: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    signature = signature.replace(" ", "")
    found = _SIGNATURE.match(signature)
    if found is None:
        raise ValueError(f"{signature!r} is no signature of a signal, expected such as clicked()")
    count = len([kind for kind in found[2].split(",") if kind])

    def called(*values: Any) -> None:
        try:
            slot(*values[:count])
        except BaseException as error:
            errors.append(error)
            raise

    if signature in getattr(one, "SIGNALS", ()):  # of a stand-in
        signal = object.__getattribute__(one, found[1])
        signal.connect(called)
        _connected[id(one), signature, slot] = lambda: signal.disconnect(called)
        return True
    if one.metaObject().indexOfSignal(signature) < 0:
        raise ValueError(f"{type(one).__name__} has no signal {signature!r}")
    # by its string, or PySide would choose among the overloads by the slot's arguments
    name = QtCore.SIGNAL(signature)
    QtCore.QObject.connect(one, name, called)
    _connected[id(one), signature, slot] = lambda: QtCore.QObject.disconnect(one, name, called)
    return True


def _disconnect(one: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    undo = _connected.pop((id(one), signature.replace(" ", ""), slot), None)
    if undo is not None:
        undo()
    return undo is not None


def modules(custom: dict[str, type]) -> tuple[ModuleType, ModuleType]:
    """The modules `qt` and `ctk`.

    Args:
        custom: Stand-ins of ctk and qMRML widgets by class name, for `.ui` files and for code.
    """
    qt, ctk = ModuleType("qt"), ModuleType("ctk")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):  # vars() lacks what is made when first asked for
            if name.startswith("Q") and not hasattr(qt, name):
                value = getattr(source, name)
                setattr(qt, name, value)
                if isinstance(value, type):
                    mannered(value)

    class UiLoader(QtUiTools.QUiLoader):
        """Makes the stand-ins, and everything else as Qt does."""

        def createWidget(self, name: str, parent: Any = None, called: str = "") -> Any:
            made = custom[name](parent) if name in custom else super().createWidget(name, parent, called)
            made.setObjectName(called)
            return made

    qt.QUiLoader = UiLoader
    for name, one in custom.items():
        setattr(ctk if name.startswith("ctk") else qt, name, mannered(one))
    return qt, ctk
