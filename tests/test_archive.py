"""Archives: what is written comes back exactly, what was changed is refused, and nothing is ever run."""

import ast
import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import inspector
from inspector import archive
from inspector.archive import ArchiveError
from inspector.tensors import Inputs, Struct, is_namedtuple, is_record, parts

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
COMPLEX = [torch.complex64, torch.complex128, torch.complex32]
WHOLE = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]
DTYPES = [*FLOATS, *COMPLEX, *WHOLE]
ODD = [0.0, -0.0, 1.0, -2.5, math.nan, math.inf, -math.inf, 300.0]


def same(one, other):
    """Equal bit for bit, NaN and the sign of zero included, and of the same dtype, shape and layout."""
    if (one.dtype, one.layout, one.is_nested) != (other.dtype, other.layout, other.is_nested):
        return False
    if one.is_nested:
        return len(one.unbind()) == len(other.unbind()) and all(map(same, one.unbind(), other.unbind()))
    if one.layout != torch.strided:
        one, other = one.coalesce(), other.coalesce()
        return same(one.indices(), other.indices()) and same(one.values(), other.values())
    if one.shape != other.shape or one.is_meta != other.is_meta:
        return False
    return one.is_meta or bits(one) == bits(other)


def bits(tensor):
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    real = torch.view_as_real(dense) if dense.is_complex() else dense
    return real.reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    if dtype in WHOLE:
        top = 1 if dtype is torch.bool else torch.iinfo(dtype).max
        values = draw(st.lists(st.integers(0, top), min_size=count, max_size=count))
        return torch.tensor(values, dtype=dtype).reshape(shape)
    values = torch.tensor(draw(st.lists(st.sampled_from(ODD), min_size=count, max_size=count)), dtype=torch.float64)
    if dtype in COMPLEX:
        return torch.complex(values, values.flip(0)).reshape(shape).to(dtype)
    return values.reshape(shape).to(dtype)


Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Answer:
    logits: object
    hidden: object = None


texts = st.text(max_size=5)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_subnormal=False),
    texts,
    st.just("$tensor"),
    st.just("</script>"),
)


keys = st.one_of(texts, st.integers(-9, 9), st.just("$map"), st.tuples(texts, st.integers(0, 3)), st.none())
MAKERS = [
    lambda names, items: list(items),
    lambda names, items: tuple(items),
    lambda names, items: dict(zip(names, items, strict=True)),
    lambda names, items: OrderedDict(zip(names, items, strict=True)),
    lambda names, items: Inputs(zip(map(str, names), items, strict=True)),
    lambda names, items: Struct(zip(map(str, names), items, strict=True)),
    lambda names, items: Pair(items, names),
    lambda names, items: Answer(*items[:2], *[None] * (1 - len(items))),
]


def nestings(inner):
    named = st.dictionaries(keys, inner, max_size=3)
    return st.tuples(st.sampled_from(MAKERS), named).map(lambda drawn: drawn[0](list(drawn[1]), list(drawn[1].values())))


trees = st.recursive(st.one_of(tensors(), plain), nestings, max_leaves=6)


def assert_same(new, old):
    if isinstance(old, torch.Tensor):
        assert same(new, old)
    elif is_namedtuple(old) or is_record(old):
        assert type(new) is Struct
        assert list(new) == [name for name, _ in parts(old)]
        for name, item in parts(old):
            assert_same(getattr(new, str(name)), item)
    elif isinstance(old, dict):
        assert type(new) is (Inputs if isinstance(old, Inputs) else dict)
        assert list(new) == list(old)
        for key, item in old.items():
            assert_same(new[key], item)
    elif isinstance(old, (tuple, list)):
        assert type(new) is type(old)
        assert len(new) == len(old)
        for one, other in zip(new, old, strict=True):
            assert_same(one, other)
    else:
        assert type(new) is type(old)
        assert repr(new) == repr(old)  # NaN equals itself here, and 1 is not True


def there_and_back(tree, folder):
    return archive.load(archive.save(Path(folder, "tree"), tree, kind="Tree"), kind="Tree")


any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_folder
@given(tree=trees)
@example(tree={"a": torch.tensor([1.0]), "b": torch.tensor([1 + 2j]), "c": torch.tensor([True])})
def test_every_tree_comes_back_as_it_was(tree, tmp_path):
    assert_same(there_and_back(tree, tmp_path), tree)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype, tmp_path):
    bytes_ = torch.randint(0, 2 if dtype is torch.bool else 256, (64,), dtype=torch.uint8)
    tree = {"all": bytes_.view(dtype), "scalar": torch.zeros((), dtype=dtype), "empty": torch.zeros((0, 3), dtype=dtype)}
    assert_same(there_and_back(tree, tmp_path), tree)


def test_views_come_back_dense_and_equal(tmp_path):
    base = torch.randn(4, 6)
    tree = [
        base.T,
        base[:, ::2],
        base[1].expand(3, 6),
        base.to(memory_format=torch.contiguous_format)[2:],
        base.requires_grad_(),
    ]
    tree += [torch.view_as_complex(torch.randn(3, 2)).conj(), torch.view_as_complex(torch.randn(3, 2)).conj().imag]
    assert_same(there_and_back(tree, tmp_path), tree)


def test_one_tensor_in_several_places_is_written_once(tmp_path):
    big = torch.randn(10_000)
    path = archive.save(tmp_path / "tree", [big, {"again": big}, (big,)], kind="Tree")
    assert path.stat().st_size < 1.2 * big.nbytes
    assert_same(archive.load(path, kind="Tree"), [big, {"again": big}, (big,)])


def quiet(make, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


def test_sparse_nested_and_meta_tensors_come_back_as_such(tmp_path):
    twice = torch.tensor([[0, 0, 2]])  # not coalesced
    hybrid = torch.sparse_coo_tensor(twice, torch.randn(3, 2), (4, 2), check_invariants=True)
    pieces = [torch.randn(2, 3), torch.randn(1, 3)]
    tree = {
        "sparse": torch.eye(3, dtype=torch.complex64).to_sparse(),
        "hybrid": hybrid,
        "nested": quiet(torch.nested.nested_tensor, pieces),
        "jagged": quiet(torch.nested.nested_tensor, pieces, layout=torch.jagged),
        "meta": torch.empty(2, 3, device="meta", dtype=torch.bfloat16),
    }
    assert_same(there_and_back(tree, tmp_path), tree)
    assert torch.equal(there_and_back(quiet(torch.eye(3).to_sparse_csr), tmp_path).to_dense(), torch.eye(3))


def test_arrays_and_numpy_numbers_come_back(tmp_path):
    tree = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "c": np.array([1j]),
        "e": np.empty((0, 2)),
        "f": np.float32(1.5),
        "i": np.int8(3),
    }
    new = there_and_back(tree, tmp_path)
    for key in "ace":
        np.testing.assert_array_equal(new[key], tree[key])
        assert new[key].dtype == tree[key].dtype
    assert (new["f"], new["i"]) == (1.5, 3)


def test_packed_sequences_and_parameters_come_back_as_data(tmp_path):
    packed = pack_sequence([torch.rand(3, 2), torch.rand(1, 2)])
    new = there_and_back([packed, nn.Parameter(torch.ones(2))], tmp_path)
    assert torch.equal(new[0].data, packed.data)
    assert new[0].sorted_indices is None
    assert type(new[1]) is torch.Tensor


@pytest.mark.parametrize(
    "value", [object(), nn.ReLU(), lambda: None, b"bytes", (i for i in [1]), int, torch.float32, np.array(["a"])]
)
def test_what_is_not_data_is_refused_and_no_file_appears(value, tmp_path):
    with pytest.raises(TypeError, match="cannot save"):
        archive.save(tmp_path / "tree", {"deep": [value]}, kind="Tree")
    assert list(tmp_path.iterdir()) == []


def test_quantized_tensors_are_refused_with_the_cure(tmp_path):
    with pytest.raises(TypeError, match="dequantize"):
        archive.save(tmp_path / "tree", quiet(torch.quantize_per_tensor, torch.ones(2), 0.1, 0, torch.qint8), kind="Tree")


TREE = {
    "tensor": torch.arange(8.0),
    "complex": torch.tensor([1j]),
    "nested": [1, {"text": "é", "none": None}],
    "nan": math.nan,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return archive.save(tmp_path_factory.mktemp("archive") / "tree", TREE, kind="Tree").read_bytes()


@any_folder
@given(data=st.data())
def test_a_truncated_file_is_refused(data, whole, tmp_path):
    path = tmp_path / "tree"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ArchiveError, match=r"save the Tree again|not one of inspector"):
        archive.load(path, kind="Tree")


@settings(any_folder, max_examples=300)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_refused_or_reads_the_same(place, change, whole, tmp_path):
    changed = bytearray(whole)
    changed[place % len(whole)] ^= change
    path = tmp_path / "tree"
    path.write_bytes(changed)
    try:
        tree = archive.load(path, kind="Tree")
    except ArchiveError as error:
        assert str(path) in str(error)
    else:
        assert_same(tree, TREE)


@any_folder
@given(bytes_=st.binary(max_size=200))
def test_any_bytes_are_refused(bytes_, tmp_path):
    path = tmp_path / "tree"
    path.write_bytes(bytes_)
    with pytest.raises(ArchiveError):
        archive.load(path, kind="Tree")


nodes = st.recursive(
    st.one_of(st.none(), st.integers(), texts, st.just("t0")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*archive._DECODERS, "$unknown"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(any_folder, max_examples=200)
@given(node=nodes)
@example(node={})
@example(node={"$float": "none"})
@example(node={"$meta": [[1], "load"]})
def test_a_forged_tree_is_read_or_refused_but_never_something_else(node, tmp_path):
    path = forge(tmp_path, {"format": archive.FORMAT, "kind": "Tree", "tree": node})
    try:
        archive.load(path, kind="Tree")
    except ArchiveError:
        pass


def forge(folder, header):
    """A file with the right checksum whose header nobody of ours wrote."""
    from safetensors.torch import save_file

    path, held = folder / "tree", {"t0": torch.ones(2)}
    text, sums = json.dumps(header), {"t0": archive.zlib.crc32(archive._raw(held["t0"]))}
    save_file(held, path, metadata={"inspector": text, "sums": json.dumps(sums), "sum": archive._sum(text, sums, held)})
    return path


@pytest.mark.parametrize("header", [None, 3, [], {}, {"format": "inspector/2"}, {"format": archive.FORMAT}])
def test_a_header_of_another_kind_is_refused(header, tmp_path):
    with pytest.raises(ArchiveError):
        archive.load(forge(tmp_path, header), kind="Tree")


def test_other_files_other_kinds_and_no_file_are_told_apart(tmp_path, whole):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(ArchiveError, match="not one of inspector"):
        archive.load(tmp_path / "foreign", kind="Tree")
    (tmp_path / "tree").write_bytes(whole)
    with pytest.raises(ArchiveError, match=r"holds a Tree, not a Store; use Tree\.load"):
        archive.load(tmp_path / "tree", kind="Store")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        archive.load(tmp_path / "none", kind="Tree")
    with pytest.raises(FileNotFoundError):
        archive.load(tmp_path, kind="Tree")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Bomb(), tmp_path / "bomb")
    with pytest.raises(ArchiveError):
        archive.load(tmp_path / "bomb", kind="Tree")
    assert not (tmp_path / "ran").exists()


def test_nothing_in_the_package_unpickles_or_evaluates():
    wanted = {"eval", "exec", "compile", "__import__"}
    modules = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path in Path(inspector.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.partition(".")[0] for alias in node.names}, where
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in modules, where
            if isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in wanted), where
                given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                safe = given.get("weights_only") is True or given.get("allow_pickle") is False
                assert ast.unparse(node.func) not in ("torch.load", "np.load", "numpy.load") or safe, where


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = archive.save(tmp_path / "tree", {"a": torch.ones(2)}, kind="Tree")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for broken in ("fsync", "replace"):
        monkeypatch.setattr(archive.os, broken, full)
        with pytest.raises(OSError, match="No space"):
            archive.save(path, {"a": torch.zeros(9)}, kind="Tree")
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_loaded_tree_survives_its_file_being_written_again(tmp_path):
    path = archive.save(tmp_path / "tree", torch.ones(5000), kind="Tree")
    old = archive.load(path, kind="Tree")
    archive.save(path, torch.zeros(5000), kind="Tree")
    assert torch.equal(old, torch.ones(5000))
    assert torch.equal(archive.load(path, kind="Tree"), torch.zeros(5000))
    archive.save(path, old, kind="Tree")  # what was read from a file may be written to it
    assert torch.equal(archive.load(path, kind="Tree"), torch.ones(5000))


def test_writing_into_what_was_loaded_does_not_change_the_file(tmp_path):
    path = archive.save(tmp_path / "tree", torch.ones(4), kind="Tree")
    archive.load(path, kind="Tree").mul_(7)
    assert torch.equal(archive.load(path, kind="Tree"), torch.ones(4))


@pytest.mark.skipif(os.name != "posix", reason="modes are posix")
def test_a_file_has_the_mode_that_the_user_asked_for(tmp_path):
    mask = os.umask(0o027)
    try:
        path = archive.save(tmp_path / "deep" / "er" / "tree", 1, kind="Tree")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


READER = """
import re, sys
from inspector import Store

def resident(path):
    blocks = re.findall(rf"{re.escape(path)}\\n.*?Rss:\\s+(\\d+) kB", open("/proc/self/smaps").read(), re.S)
    return 1024 * sum(map(int, blocks))

path = sys.argv[1]
store = Store.load(path)
opened = resident(path)
total = float(store["layer"].output[[3, 4000]].sum())
print(opened, resident(path), total)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what was read")
def test_two_samples_of_a_large_store_are_read_without_reading_the_rest(tmp_path):
    model = nn.Sequential(OrderedDict(layer=nn.Identity()))
    values = torch.randn(5000, 2500)  # 50 MB, 10 kB a sample
    with inspector.capture(model, "layer") as store:
        model(values)
    path = store.save(tmp_path / "store")
    answer = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True).stdout
    opened, read, total = map(float, answer.split())
    assert total == pytest.approx(float(values[[3, 4000]].sum()), rel=1e-4)
    assert opened < 500_000  # the header, and what the system maps around it
    assert read < 5_000_000


def test_a_record_is_saved_anew_but_no_other_file_is_replaced(tmp_path):
    path = archive.save(tmp_path / "a.safetensors", {"x": torch.ones(2)}, kind="Thing")
    archive.save(path, {"x": torch.zeros(2)}, kind="Thing")
    assert not archive.load(path, kind="Thing")["x"].any()
    for name, content in (
        ("data.csv", b"age,income\n1,2\n" * 99),
        ("short", b"abc"),
        ("weights", b"\x02" + b"\0" * 7 + b"{}"),
    ):
        other = tmp_path / name
        other.write_bytes(content)
        with pytest.raises(FileExistsError, match="choose another name"):
            archive.save(other, {"x": torch.ones(2)}, kind="Thing")
        assert other.read_bytes() == content
    with pytest.raises(IsADirectoryError):
        archive.save(tmp_path, {"x": torch.ones(2)}, kind="Thing")
    (tmp_path / "empty").touch()
    archive.save(tmp_path / "empty", {"x": torch.ones(2)}, kind="Thing")
