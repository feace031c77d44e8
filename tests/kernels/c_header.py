"""patchcut.h as ctypes: what it declares is read from its text, so that no test repeats it."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_SCALARS = {
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "void": None,
    "patchcut_interrupt": ctypes.c_void_p,  # a pointer to a function
}
_ENUM = re.compile(r"typedef enum (\w+) \{([^}]*)\} \1;")
_STRUCT = re.compile(r"typedef struct (\w+) \{([^}]*)\} \1;")
_FUNCTION = re.compile(r"PATCHCUT_API (.+?)\b(\w+)\(([^)]*)\);")
_DEFAULTS = re.compile(r"#define (PATCHCUT_\w+_DEFAULTS)\s+\{([^}]*)\}")


@dataclass(frozen=True)
class Parameter:
    """Of a function: its type as C writes it, such as "const float*", and its name."""

    type: str
    name: str

    @property
    def is_pointer(self) -> bool:
        return self.type.endswith("*")

    @property
    def is_output(self) -> bool:
        return self.is_pointer and not self.type.startswith("const ")


@dataclass(frozen=True)
class Function:
    name: str
    returns: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Header:
    """Enums, and the constants of all; structs; functions; values of the macros that fill a struct."""

    enums: dict[str, dict[str, int]]
    constants: dict[str, int]
    structs: dict[str, type[ctypes.Structure]]
    functions: dict[str, Function]
    defaults: dict[str, tuple[float, ...]]


def _parameter(text: str) -> Parameter:
    """Of "const int64_t strides[4]" as of "float* degrees"."""
    match = re.fullmatch(r"(.+?)(\w+)(\[\w*\])?", text.strip())
    assert match, text
    kind, name, array = match.groups()
    return Parameter(kind.strip() + ("*" if array else ""), name)


def _ctype(kind: str, enums: set[str]) -> type | None:
    if kind == "const char*":
        return ctypes.c_char_p
    if kind.endswith("*"):
        return ctypes.c_void_p
    return ctypes.c_int if kind in enums else _SCALARS[kind]


def _struct(name: str, body: str, enums: set[str]) -> type[ctypes.Structure]:
    fields = []
    for line in filter(None, map(str.strip, body.split(";"))):
        match = re.fullmatch(r"(.+?)(\w+)(?:\[(\d+)\])?", line)
        assert match, line
        kind = _ctype(match[1].strip(), enums)
        fields.append((match[2], kind * int(match[3]) if match[3] else kind))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def parse_header(path: Path) -> Header:
    text = re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.S).replace("\\\n", " ")
    code = " ".join(re.sub(r"^#.*$", "", text, flags=re.M).split())
    enums = {
        name: {constant: int(value) for constant, value in re.findall(r"(\w+) = (-?\d+)", body)}
        for name, body in _ENUM.findall(code)
    }
    constants = {name: value for values in enums.values() for name, value in values.items()}
    functions = {
        name: Function(
            name, returns.strip(), tuple(map(_parameter, filter(_is_named, parameters.split(","))))
        )
        for returns, name, parameters in _FUNCTION.findall(code)
    }
    defaults = {
        name: tuple(
            float(constants.get(value.strip(), value.strip().rstrip("f"))) for value in body.split(",")
        )
        for name, body in _DEFAULTS.findall(text)
    }
    structs = {name: _struct(name, body, set(enums)) for name, body in _STRUCT.findall(code)}
    return Header(enums, constants, structs, functions, defaults)


def _is_named(parameter: str) -> bool:
    return parameter.strip() != "void"


def open_library(path: Path, header: Header) -> ctypes.CDLL:
    """The library, its functions typed as the header declares them; every pointer is untyped."""
    library = ctypes.CDLL(str(path))
    enums = {"patchcut_status"}
    for function in header.functions.values():
        native = getattr(library, function.name)
        native.restype = _ctype(function.returns, enums)
        native.argtypes = [_ctype(parameter.type, enums) for parameter in function.parameters]
    return library
