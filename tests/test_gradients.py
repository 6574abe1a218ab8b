"""The algebra of gradients against dense arithmetic in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from precode_lib import gradients as G
from precode_lib.gradients import Gradients, Outer, entrywise, terms

SIZES = st.integers(1, 5)
LAYOUTS = st.tuples(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))


def random_outer(victims, rank, rows, columns, generator):
    left = torch.randn(victims, rank, rows, generator=generator).double()
    right = torch.randn(victims, rank, columns, generator=generator).double()
    return Outer(left, right, torch.Size([rows, columns]))


def mixed_pair(layout):
    """Two gradients of three parameters in every combination of layouts."""
    victims, rank, rows, columns, seed = layout
    generator = torch.Generator().manual_seed(seed)
    a, b, c, d = (
        random_outer(victims, r, rows, columns, generator) for r in (rank, 1, 2, rank)
    )
    bias = torch.randn(2, victims, rows, generator=generator).double()
    first = {"a": a, "b": b.dense(), "c": c, "bias": bias[0]}
    second = {"a": d, "b": c, "c": b.dense(), "bias": bias[1]}
    return Gradients(first), Gradients(second)


def flat(gradients):
    terms = (G.dense(term) for term in gradients.values())
    return torch.cat([term.reshape(len(term), -1) for term in terms], 1)


@settings(max_examples=60)
@given(LAYOUTS)
def test_products_of_every_layout_equal_those_of_the_dense_vectors(layout):
    a, b = mixed_pair(layout)
    x, y = flat(a), flat(b)
    assert_close(G.inner(a, b), (x * y).sum(1), rtol=1e-9, atol=1e-9)
    assert_close(G.squared_norm(a), x.square().sum(1), rtol=1e-9, atol=1e-9)
    cosine = torch.nn.functional.cosine_similarity(x, y, eps=0)
    assert_close(G.cosine_similarity(a, b), cosine, rtol=1e-9, atol=1e-9)
    expected = (x - y).square().sum(1)
    assert_close(G.squared_distance(a, b), expected, rtol=1e-9, atol=1e-9)


def test_a_scalar_parameter_is_a_gradient_too(generator):
    gain = torch.randn(2, 3, generator=generator)
    a, b = (Gradients({"gain": each}) for each in gain)
    assert_close(G.inner(a, b), gain[0] * gain[1])
    assert_close(G.squared_distance(a, b), (gain[0] - gain[1]).square())
    assert_close(G.layer_cosines(a, b)[:, 0], (gain[0] * gain[1]).sign())


@settings(max_examples=20)
@given(LAYOUTS)
def test_each_parameter_has_its_own_product(layout):
    a, b = mixed_pair(layout)
    x = {n: G.dense(t).flatten(1) for n, t in a.items()}
    y = {n: G.dense(t).flatten(1) for n, t in b.items()}
    columns = [(x[n] * y[n]).sum(1) for n in a]
    assert_close(G.inners(a, b), torch.stack(columns, 1))
    cosines = [torch.nn.functional.cosine_similarity(x[n], y[n], eps=0) for n in a]
    assert_close(G.layer_cosines(a, b), torch.stack(cosines, 1))


def test_weights_scale_each_parameter_inside_the_sums():
    a, b = mixed_pair((3, 2, 4, 5, 0))
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0])
    scaled = [
        Gradients({n: t.map(lambda x, w=w: x * w**0.25) if isinstance(t, Outer)
                   else t * w**0.5 for (n, t), w in zip(g.items(), weights.double(),
                                                        strict=True)})
        for g in (a, b)
    ]  # fmt: skip
    expected = G.cosine_similarity(*scaled)
    assert_close(G.cosine_similarity(a, b, weights=weights), expected)
    assert_close(
        G.squared_distance(a, b, weights=weights),
        (G.squared_distances(a, b) * weights).sum(1),
    )


def test_weights_of_the_wrong_length_are_refused():
    a, b = mixed_pair((3, 2, 4, 5, 0))
    with pytest.raises(ValueError, match="4 parameters"):
        G.squared_distance(a, b, weights=torch.ones(3))


def test_the_cosine_of_a_zero_gradient_is_zero_and_has_a_finite_slope():
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    other = Gradients({"w": torch.ones(1, 3, dtype=torch.float64)})
    for cosine in (G.cosine_similarity, G.layer_cosines):
        value = cosine(Gradients({"w": zero}), other)
        assert value.item() == 0
        (slope,) = torch.autograd.grad(value.sum(), zero)
        assert slope.isfinite().all()


def test_the_cosine_of_tiny_gradients_does_not_underflow():
    tiny = Gradients({"w": torch.full((1, 3), 1e-18)})
    assert G.cosine_similarity(tiny, tiny).item() == pytest.approx(1)


@pytest.mark.parametrize("dense_target", [False, True])
def test_squared_distance_does_not_cancel_in_float32(generator, dense_target):
    here = random_outer(2, 2, 40, 30, generator).map(torch.Tensor.float)
    there = here.map(lambda t: t + 1e-6 * torch.randn(t.shape, generator=generator))
    exact = [t.map(torch.Tensor.double).dense() for t in (here, there)]
    if dense_target:
        there = there.dense()
        exact[1] = there.double()
    truth = (exact[0] - exact[1]).square().sum((1, 2))
    assert (truth < 1e-7).all()  # of squared norms around 1000
    found = G.squared_distance(Gradients({"w": here}), Gradients({"w": there}))
    # Multiplied out in float32, this would be off by hundreds of times its size.
    assert_close(found.double(), truth, rtol=0.1, atol=0)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("layout", ["factored", "dense target", "dense"])
@pytest.mark.parametrize("product", [G.inner, G.squared_distance, G.cosine_similarity])
def test_derivatives_of_products_equal_finite_differences(product, layout, ranks):
    generator = torch.Generator().manual_seed(2)
    a, b = (random_outer(3, rank, 4, 5, generator) for rank in ranks)
    right = b if layout == "factored" else b.dense()

    def value(left_factor, right_factor):
        term = Outer(left_factor, right_factor, a.shape)
        term = term.dense() if layout == "dense" else term
        return product(Gradients({"w": term}), Gradients({"w": right}))

    inputs = (a.left.requires_grad_(), a.right.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)


def test_distance_to_a_dense_target_is_symmetric_and_chunks_agree(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    a = random_outer(5, 2, 4, 3, generator)
    b = Gradients({"w": random_outer(5, 1, 4, 3, generator).dense()})
    whole = G.squared_distance(Gradients({"w": a}), b)
    assert_close(G.squared_distance(b, Gradients({"w": a})), whole)
    monkeypatch.setattr(
        terms, "TEMPORARY_BYTES", 2 * 4 * 3 * 8
    )  # two victims at a time
    left = a.left.clone().requires_grad_()
    moved = Gradients({"w": Outer(left, a.right, a.shape)})
    pieces = G.squared_distance(moved, b)
    assert_close(pieces, whole)
    (slope,) = torch.autograd.grad(pieces.sum(), left)
    residual = a.dense() - b["w"]
    assert_close(slope, 2 * a.right @ residual.transpose(1, 2))


def test_distance_to_a_target_that_needs_a_gradient_reaches_the_target():
    generator = torch.Generator().manual_seed(4)
    a = random_outer(2, 1, 3, 3, generator)
    target = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    distance = G.squared_distance(Gradients({"w": a}), Gradients({"w": target}))
    (slope,) = torch.autograd.grad(distance.sum(), target)
    assert_close(slope, 2 * (target - a.dense()))


def forced(large):
    """Below LARGE terms are taken together, from LARGE on one by one."""
    return 10**9 if large == "together" else 0


@pytest.mark.parametrize("way", ["together", "one by one"])
@pytest.mark.parametrize("guess", ["factored", "dense"])
@pytest.mark.parametrize("columns", [(), (5,), (2, 3)])
def test_large_and_small_terms_have_the_same_products(
    monkeypatch, generator, way, guess, columns
):
    monkeypatch.setattr(terms, "LARGE", forced(way))
    shape = torch.Size([4, *columns])
    left = torch.randn(3, 2, 4, generator=generator).double().requires_grad_()
    right = torch.randn(3, 2, shape[1:].numel(), generator=generator).double()
    right.requires_grad_()
    target = Gradients({"w": torch.randn(3, *shape, generator=generator).double()})

    def cosine(left, right):
        term = Outer(left, right, shape)
        term = term if guess == "factored" else term.dense()
        return G.cosine_similarity(Gradients({"w": term}), target)

    assert torch.autograd.gradcheck(cosine, (left, right))
    whole, other = (flat(Gradients({"w": t})) for t in (
        Outer(left, right, shape).dense(), target["w"]))  # fmt: skip
    expected = torch.nn.functional.cosine_similarity(whole, other, eps=0)
    assert_close(cosine(left, right), expected)
    constant = Gradients({"w": Outer(left.detach(), right.detach(), shape)})
    for each in (constant, constant.dense()):
        assert_close(G.inner(each, target), (whole * other).sum(1).detach())
        assert_close(G.squared_norm(each), whole.square().sum(1).detach())


def test_a_product_reaches_the_dense_side_when_that_is_sought(generator):
    factors = random_outer(3, 2, 4, 5, generator)
    sought = torch.randn(3, 4, 5, generator=generator).double().requires_grad_()
    for pair in ((factors, sought), (sought, factors)):
        value = G.inner(*(Gradients({"w": term}) for term in pair))
        assert_close(value, (factors.dense() * sought).sum((1, 2)))
        (slope,) = torch.autograd.grad(value.sum(), sought)
        assert_close(slope, factors.dense())
    value = G.inner(Gradients({"w": sought}), Gradients({"w": factors.dense()}))
    (slope,) = torch.autograd.grad(value.sum(), sought)
    assert_close(slope, factors.dense())


@pytest.mark.parametrize(
    ("rank", "shape", "expected"),
    [
        (1, (3, 3), True),  # 6 numbers instead of 9
        (1, (2, 2), False),  # 4 instead of 4: nothing gained
        (2, (4, 5), True),  # 18 instead of 20
        (3, (4, 5), False),  # 27 instead of 20
        (2, (4, 2, 3, 3), True),  # 44 instead of 72
        (4, (4, 2, 3, 3), False),  # 88 instead of 72
    ],
)
def test_factors_are_preferred_when_they_are_fewer_numbers(rank, shape, expected):
    assert G.prefers_factors(rank, shape) is expected


def test_chunks_hold_as_many_victims_as_fit_but_at_least_one(monkeypatch):
    tensor = torch.zeros(5, 4, dtype=torch.float64)  # 32 bytes a victim
    for limit, step in ((1, 1), (63, 1), (64, 2), (95, 2), (10**6, 31250)):
        monkeypatch.setattr(terms, "TEMPORARY_BYTES", limit)
        chunks = list(terms.victim_chunks(tensor))
        assert chunks == [slice(i, i + step) for i in range(0, 5, step)]


@pytest.mark.parametrize("limit", [1, 10**6])
def test_any_sum_over_entries_has_the_slopes_of_the_dense_one(
    generator, monkeypatch, limit
):
    monkeypatch.setattr(entrywise, "CACHED_BYTES", limit)  # one victim at a time, all
    left, right = (
        torch.randn(3, 2, n, generator=generator, dtype=torch.float64) for n in (4, 5)
    )
    target = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)

    def cost(guess, target):  # of a whole row of entries
        return (guess - target).abs() ** 1.5 * target.amax(1, keepdim=True)

    def total(left, right):
        guess = G.Gradients({"w": G.Outer(left, right, torch.Size((4, 5)))})
        return G.entry_sums(guess, G.Gradients({"w": target}), cost)

    expected = cost((left.mT @ right).flatten(1), target.flatten(1)).sum(1)
    torch.testing.assert_close(total(left, right), expected[:, None])
    inputs = left.requires_grad_(), right.requires_grad_()
    assert torch.autograd.gradcheck(total, inputs)


def test_sums_over_entries_are_of_two_gradients_of_one_model():
    a = G.Gradients({"w": torch.zeros(1, 2)})
    b = G.Gradients({"v": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="different models"):
        G.entry_sums(a, b, torch.sub)


def test_factors_cannot_be_exchanged(generator):
    factors = random_outer(1, 1, 2, 2, generator)
    with pytest.raises(AttributeError):
        factors.left = factors.right
    assert not hasattr(factors, "__dict__")  # a search makes thousands of them


# --- factoring --------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_factor_finds_matrices_of_low_rank_again(victims, rank, double, seed):
    generator = torch.Generator().manual_seed(seed)
    exact = random_outer(victims, rank, 40, 30, generator)
    dtype = torch.float64 if double else torch.float32
    target = Gradients({"w": exact.dense().to(dtype), "b": torch.ones(victims, 3)})
    found = G.factor(target, {"w": rank})
    assert isinstance(found["w"], Outer)
    assert found["w"].left.shape == (victims, rank, 40)
    tolerance = 1e-10 if double else 1e-4
    assert_close(found.dense()["w"], target["w"], atol=tolerance, rtol=0)
    assert found["b"] is target["b"]


@pytest.mark.parametrize("noise", [1e-4, 1.0])
def test_factor_leaves_noisy_matrices_dense(generator, noise):
    exact = random_outer(2, 1, 40, 30, generator).dense().float()
    noisy = exact + noise * torch.randn(exact.shape, generator=generator)
    assert torch.equal(G.factor(Gradients({"w": noisy}), {"w": 1})["w"], noisy)


def test_one_noisy_victim_keeps_all_dense_however_large_the_others_are(generator):
    exact = random_outer(3, 1, 40, 30, generator).dense()
    exact[0] *= 1e12
    factored = G.factor(Gradients({"w": exact}), {"w": 1})["w"]
    assert isinstance(factored, Outer)
    exact[1, 0, 0] += 1e-3
    assert G.factor(Gradients({"w": exact}), {"w": 1})["w"] is exact


def test_factors_do_not_depend_on_anyones_random_numbers(generator):
    target = Gradients({"w": random_outer(2, 2, 40, 30, generator).dense()})
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(G.factor(target, {"w": 2})["w"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0].left, found[1].left)


def test_factor_of_a_deficient_matrix_and_of_zero_is_exact(generator):
    one = random_outer(1, 1, 40, 30, generator).dense()
    target = Gradients({"w": torch.cat([one, torch.zeros_like(one)])})
    found = G.factor(target, {"w": 3})
    assert isinstance(found["w"], Outer)
    assert_close(found.dense()["w"], target["w"])


def test_factor_keeps_what_would_not_get_smaller_or_was_not_asked_for(generator):
    small = torch.randn(1, 3, 3, generator=generator)
    factors = random_outer(1, 1, 9, 9, generator)
    asked = random_outer(1, 1, 9, 9, generator).dense()
    terms = Gradients({"w": small, "o": factors, "a": asked, "n": asked})
    found = G.factor(terms, {"w": 2, "o": 1, "a": 1})
    assert found["w"] is small
    assert found["o"] is factors
    assert found["n"] is asked
    assert G.ranks(found) == {"o": 1, "a": 1}
    tiny = Gradients({"w": torch.ones(1, 2, 2)})  # of rank 1, and yet not smaller
    assert G.factor(tiny, {"w": 1})["w"] is tiny["w"]


def test_factor_takes_a_convolution_as_a_matrix_of_its_patches(generator):
    kernel = random_outer(2, 3, 8, 36, generator).dense().view(2, 8, 4, 3, 3)
    found = G.factor(Gradients({"k": kernel}), {"k": 3})["k"]
    assert found.right.shape == (2, 3, 36)
    assert_close(found.dense(), kernel)


def test_factor_refuses_ranks_below_one_and_unknown_names():
    for ranks in ({"w": 0}, {"v": 1}):
        with pytest.raises(ValueError, match="no parameter"):
            G.factor(Gradients({"w": torch.ones(1, 3, 3)}), ranks)


# --- the container ----------------------------------------------------------------


@pytest.fixture
def pair():
    return mixed_pair((3, 2, 4, 5, 7))


def test_a_list_survives_the_way_there_and_back(generator):
    names = ["fc.weight", "fc.bias"]
    tensors = [torch.randn(s, generator=generator) for s in ((3, 2), (3,))]
    gradients = G.from_list(names, tensors)
    assert list(gradients) == names
    assert gradients.num_victims == 1
    for back, tensor in zip(G.to_list(gradients), tensors, strict=True):
        assert torch.equal(back, tensor)


def test_to_list_picks_one_victim_and_builds_its_matrices(pair):
    a, _ = pair
    for victim in (0, 2, -1):
        for got, term in zip(G.to_list(a, victim), a.values(), strict=True):
            assert_close(got, G.dense(term)[victim])
    with pytest.raises(IndexError, match="no victim 3: there are 3"):
        G.to_list(a, 3)


def test_from_list_refuses_missing_gradients_and_odd_lengths():
    with pytest.raises(ValueError, match="no gradient: \\['b'\\]"):
        G.from_list(["a", "b"], [torch.ones(1), None])
    with pytest.raises(ValueError, match="2 names for 1 tensors"):
        G.from_list(["a", "b"], [torch.ones(1)])


def test_concatenate_puts_victims_in_a_row(pair):
    a, b = pair
    both = G.concatenate([a, b])
    assert both.num_victims == 6
    assert_close(flat(both), torch.cat([flat(a), flat(b)]))
    tall = Gradients({"a": random_outer(2, 3, 4, 5, torch.Generator())})
    mixed = G.concatenate([a.select("a"), tall])  # of ranks 2 and 3
    assert not isinstance(mixed["a"], Outer)
    assert_close(flat(mixed), torch.cat([flat(a.select("a")), flat(tall)]))
    same = G.concatenate([a, a])
    assert isinstance(same["a"], Outer)
    assert_close(flat(same)[3:], flat(a))
    with pytest.raises(ValueError, match="nothing to concatenate"):
        G.concatenate([])
    with pytest.raises(ValueError, match="different models: \\['a', 'bias'"):
        G.concatenate([a, b.select("b", "c")])


def test_take_keeps_the_chosen_victims_of_every_layout(pair):
    a, _ = pair
    mask = torch.tensor([True, False, True])
    for victims in (mask, torch.tensor([0, 2]), slice(0, None, 2)):
        assert torch.equal(flat(a.take(victims)), flat(a)[::2])


def test_take_of_one_victim_keeps_the_axis_of_victims(pair):
    a, _ = pair
    for victim in (1, -2, torch.tensor(1)):
        assert torch.equal(flat(a.take(victim)), flat(a)[1:2])
    with pytest.raises(IndexError):
        a.take(3)


def test_select_and_drop_split_the_parameters_by_pattern(pair):
    a, _ = pair
    assert list(a.select("b*")) == ["b", "bias"]
    assert list(a.drop("b*")) == ["a", "c"]
    assert list(a.select("[ac]")) == list(a.drop("b", "bias"))
    with pytest.raises(ValueError, match="matches 'bais'; the closest name is 'bias'"):
        a.select("bais")
    with pytest.raises(ValueError, match="matches 'zzz'; the closest name is"):
        a.select("zzz")
    with pytest.raises(ValueError, match="drop every parameter"):
        a.drop("*")


def test_conversion_reaches_every_tensor_and_changes_nothing_in_place(pair):
    a, _ = pair
    single = a.to(torch.float32)
    assert all(G.dense(t).dtype == torch.float32 for t in single.values())
    assert all(G.dense(t).dtype == torch.float64 for t in a.values())
    dense = a.dense()
    assert not any(isinstance(t, Outer) for t in dense.values())
    assert torch.equal(flat(dense), flat(a))
    assert isinstance(a["a"], Outer)
    assert G.dense(a.to(dtype=torch.float32)["a"]).dtype == torch.float32
    assert not a.requires_grad
    a["bias"].requires_grad_()
    assert a.requires_grad
    assert not a.detach()["bias"].requires_grad
    assert not a.detach().requires_grad


def test_constant_norms_are_kept_and_others_are_not(pair):
    a, _ = pair
    assert a.squared_norms() is a.squared_norms()
    a["bias"].requires_grad_()
    fresh = Gradients(a)
    assert fresh.squared_norms() is not fresh.squared_norms()
    assert_close(fresh.squared_norms(), a.squared_norms())
    with torch.no_grad():  # a look at the norms must not make them constant
        fresh.squared_norms()
    assert fresh.squared_norms().requires_grad


def test_either_factor_makes_a_gradient_require_one(generator):
    left, right = (torch.randn(2, 1, n, generator=generator) for n in (3, 4))
    shape = torch.Size((3, 4))
    for sides in ((left.clone().requires_grad_(), right), (left, right.clone())):
        sides[1].requires_grad_(not sides[0].requires_grad)
        assert Gradients({"w": Outer(*sides, shape)}).requires_grad
    assert not Gradients({"w": Outer(left, right, shape)}).requires_grad


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("product", [G.inner, G.squared_distance, G.cosine_similarity])
def test_every_product_refuses_gradients_of_other_victims(
    pair, product, differentiable
):
    a, b = pair
    a["bias"].requires_grad_(differentiable)
    with pytest.raises(ValueError, match="3 victims, the other 1"):
        product(a, b.take(slice(0, 1)))


def test_a_gradient_says_what_it_holds(pair):
    a, _ = pair
    assert repr(a) == "Gradients(3 victims, 4 parameters, 2 factored)"
    assert len(a) == 4
    assert a.shapes == dict.fromkeys("abc", torch.Size([4, 5])) | {
        "bias": torch.Size([4])
    }


def test_a_misspelt_parameter_gets_a_hint(pair):
    a, _ = pair
    with pytest.raises(KeyError, match="no parameter 'bais'. Did you mean 'bias'"):
        a["bais"]
    assert a.get("bais") is None
    assert "bais" not in a


def test_gradients_that_do_not_fit_are_refused(pair):
    a, b = pair
    with pytest.raises(ValueError, match="at least one term"):
        Gradients({})
    with pytest.raises(ValueError, match="same number of victims"):
        Gradients({"a": torch.ones(2, 3), "b": torch.ones(3, 3)})
    with pytest.raises(ValueError, match="different orders"):
        G.inner(a, Gradients(dict(reversed(list(b.items())))))
    with pytest.raises(ValueError, match="3 victims, the other 2"):
        G.inner(a, b.take(slice(0, 2)))
    with pytest.raises(ValueError, match="different models: \\['b'\\]"):
        G.inner(a, Gradients({**b, "b": torch.ones(3, 5, 4)}))


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Outer(torch.ones(2, 1, 3), torch.ones(2, 2, 4), torch.Size([3, 4]))
    with pytest.raises(ValueError, match="do not fit"):
        Outer(torch.ones(2, 3), torch.ones(2, 1, 4), torch.Size([3, 4]))
    with pytest.raises(ValueError, match="2 rows, the parameter 3"):
        Outer(torch.ones(2, 1, 2), torch.ones(2, 1, 4), torch.Size([3, 4]))
    column = Outer(torch.ones(2, 1, 3), torch.ones(2, 1, 1), torch.Size([3]))
    assert column.dense().shape == (2, 3)


def test_what_is_mapped_does_not_depend_on_the_layout():
    generator = torch.Generator().manual_seed(0)
    factored = Gradients({"w": random_outer(2, 3, 4, 5, generator)})
    for change in (lambda term: 0.5 * term, torch.zeros_like, torch.sign):
        mapped = factored.map(change)
        assert_close(mapped["w"], change(factored.dense()["w"]))
        assert_close(mapped["w"], factored.dense().map(change)["w"])
    # What touches no value keeps the factors.
    for kept in (factored.detach(), factored.to(torch.float32), factored.take([1])):
        assert isinstance(kept["w"], Outer)
