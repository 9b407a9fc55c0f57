"""A second device without an accelerator: it computes on the CPU, but apart from it.

As on a GPU, an operation on tensors of both devices is an error, and so is numpy's view
of what is there. Its name, ``lazy``, is one of torch's that nothing else here uses.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, SECOND = torch.device("cpu"), torch.device("lazy")
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
TO_THAT_OF_ANOTHER = (aten._to_copy.default, aten.scalar_tensor.default)


class Remote(Tensor):
    """A tensor on the second device; its numbers are `held`, on the CPU."""

    @staticmethod
    def __new__(cls, held):
        # To torch's own code it is without numbers; to Python it is on the device.
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    @property
    def device(self):
        return SECOND

    is_meta = False

    def __repr__(self):
        return f"Remote({self.held!r})"

    def __reduce_ex__(self, protocol):
        raise TypeError("a tensor of the second device was pickled")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError("The second device is used outside `SecondDevice`.")


class SecondDevice(TorchDispatchMode):
    """Within it there is a second device, and `n_operations` counts its work."""

    n_operations = 0

    def __enter__(self):
        # Its tensors cannot be given other numbers in place, as those of torch can.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        remote = [t for t in tensors if isinstance(t, Remote)]
        # Single numbers of the CPU go along with any device.
        local = [t for t in tensors if not isinstance(t, Remote) and t.ndim > 0]
        if remote and local and function not in COPIES:
            shapes = [tuple(t.shape) for t in local]
            raise RuntimeError(f"{function}: tensors {shapes} are left on the CPU")
        is_remote = bool(remote)
        if function is aten.copy_.default:
            is_remote = isinstance(args[0], Remote)
        asked = kwargs.get("device")
        if asked is not None:
            # Where torch's own code takes the device of a remote tensor.
            is_known = bool(remote) or function in TO_THAT_OF_ANOTHER
            is_known &= not any(t.is_meta for t in local)
            is_remote = asked == SECOND or (asked.type == "meta" and is_known)
            kwargs["device"] = CPU if is_remote else asked
        self.n_operations += is_remote
        found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not is_remote:
            return found
        given = {id(tensor.held): tensor for tensor in remote}

        def there(value):
            if not isinstance(value, Tensor):
                return value
            # What was changed in place stays the tensor that it is.
            return given[id(value)] if id(value) in given else Remote(value)

        return tree_map(there, found)


def _held(value):
    return value.held if isinstance(value, Remote) else value
