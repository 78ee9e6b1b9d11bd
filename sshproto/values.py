"""How classes of values are made: by attrs, without the methods that it would compile anew for each class.

:func:`frozen` and :func:`define` are those of attrs, arguments and behaviour alike, and type checkers see no other.
But attrs writes the source of ``__repr__``, ``__eq__`` and ``__hash__`` for each class and compiles it when the class
is made, which is more than half of what a class costs at import.  Here all classes share one of each, which goes by the
fields.  ``__init__``, the one that is called often, stays compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from attrs import define, frozen
else:
    import functools
    import operator
    import reprlib

    import attrs

    @functools.cache
    def _compared(cls: type) -> Any:
        """What an instance is compared by, as one value."""
        names = [field.name for field in attrs.fields(cls) if field.eq]
        return operator.attrgetter(*names) if names else type

    @functools.cache
    def _hashed(cls: type) -> Any:
        """What an instance is hashed by, as one value."""
        names = [field.name for field in attrs.fields(cls) if (field.eq if field.hash is None else field.hash)]
        return operator.attrgetter(*names) if names else type

    class _Shared:
        """The methods that all classes have in common."""

        def __eq__(self: Any, other: object) -> Any:
            cls = self.__class__
            if other.__class__ is not cls:
                return NotImplemented
            getter = _compared(cls)
            return getter(self) == getter(other)

        def __hash__(self: Any) -> int:
            cls = self.__class__
            return hash((cls, _hashed(cls)(self)))

        @reprlib.recursive_repr()
        def __repr__(self: Any) -> str:
            cls = self.__class__
            shown = [
                f"{field.name}={(repr if field.repr is True else field.repr)(getattr(self, field.name, attrs.NOTHING))}"
                for field in attrs.fields(cls)
                if field.repr
            ]
            return f"{cls.__qualname__.rsplit('>.', 1)[-1]}({', '.join(shown)})"

    def _maker(make: Any, hasher: Any) -> Any:
        """``make`` of attrs, with the shared methods for those that the class does not define itself."""

        def maker(
            cls: type | None = None, /, *, eq: bool = True, repr: bool = True, cache_hash: bool = False, **options: Any
        ) -> Any:
            if cls is None:
                return functools.partial(maker, eq=eq, repr=repr, cache_hash=cache_hash, **options)
            own = vars(cls)
            if repr and "__repr__" not in own:
                cls.__repr__ = _Shared.__repr__
            if eq and "__eq__" not in own:
                cls.__eq__ = _Shared.__eq__
                if cache_hash:  # which needs a place in the instance, and attrs to know of it
                    options.update(unsafe_hash=True, cache_hash=True)
                elif "__hash__" not in own:
                    cls.__hash__ = hasher
            return make(cls, eq=False, repr=False, **options)

        return maker

    define = _maker(attrs.define, None)
    frozen = _maker(attrs.frozen, _Shared.__hash__)


class Unpicklable:
    """What holds a secret, and does not leave the process."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds a secret and is not pickled or copied")


__all__ = ["Unpicklable", "define", "frozen"]
