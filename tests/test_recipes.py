import json

import pytest

from logit_distributions import recipes
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job

EVERY = [(name, scale) for scale, each in recipes.SCALES.items() for name in recipes.names(each)]


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_recipes_survive_storing(name, scale):
    recipe = recipes.recipe(name, scale)
    again = recipes.parse(json.loads(recipe.to_json()))
    assert again == recipe
    assert again.hash == recipe.hash


def test_hashes_tell_recipes_apart():
    made = [recipes.recipe(name, scale) for name, scale in EVERY]
    assert len({recipe.hash for recipe in made}) == len(made)


def test_the_paper_scale_is_the_papers():
    for name in recipes.names(recipes.SCALES["paper"]):
        recipe = recipes.recipe(name, "paper")
        epochs = 0 if name == recipes.UNTRAINED else 200
        assert (recipe.width, recipe.epochs, recipe.batch_size) == (64, epochs, 128)
        assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 2e-4)
        how = recipe.distillation
        if how is not None and how.teacher == "at" and "epoch" not in name:
            assert recipe.distillation.epoch == 40
    attack = recipes.recipe("at", "paper").pgd
    assert attack is not None
    assert (attack.eps, attack.step, attack.steps) == (8 / 255, 2 / 255, 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("at", "d1fc914d7edab0c5"),
        ("st", "81e77e5196e86c67"),
        ("normal", "2c221b68b75d37a8"),
        ("fix-1-permute", "cc7ee18a0a19c07f"),
        ("correct-fix-1", "972b2db80bc9de24"),
        ("hybrid", "5eb25d695e0f5c16"),
        ("fix-1-average", "6272c45659897e85"),
    ],
)
def test_the_recipes_of_the_medium_scale_stay(name, expected):
    recipe = recipes.recipe(name, "medium")
    assert (recipe.width, recipe.epochs, recipe.schedule) == (16, 20, "linear")
    assert recipe.hash == expected


def test_methods():
    methods = {name: recipes.recipe(name).method for name in recipes.names(recipes.SCALES["small"])}
    assert methods["st"] == "standard"
    assert methods["at"] == "adversarial"
    others = {method: [n for n in methods if methods[n] == method] for method in methods.values()}
    regularized = [n for n in others["standard"] if n != "st"]
    assert all(n.startswith(tuple(recipes.REGULARIZERS)) for n in regularized)
    assert others["adversarial"] == ["at"]
    assert others["untrained"] == [recipes.UNTRAINED]
    assert set(others) == {"standard", "adversarial", "distillation", "untrained"}


def test_unknown_names_list_the_known():
    with pytest.raises(
        ReproError, match="unknown recipe 'fix-2' at scale small: expected one of st, at"
    ):
        recipes.recipe("fix-2")
    with pytest.raises(ReproError, match="unknown scale 'huge': expected one of paper, medium"):
        recipes.recipe("st", "huge")


def test_a_scale_can_be_varied():
    at = recipes.recipe("at", "small+resnet34+eps4")
    assert (at.network, at.eps, at.epochs) == ("resnet34", 4 / 255, 6)
    assert at.pgd == recipes.PGD(4 / 255, 1 / 255, 10)
    assert at.run(1) == "cifar10-small+resnet34+eps4-at-seed1"
    assert recipes.parse(json.loads(at.to_json())) == at
    assert recipes.recipe("normal", "paper+eps2").distillation.epoch == 40
    normal = Job("train", recipes.recipe("normal", "small+eps4"), 0, 6)
    assert [need.recipe for need in normal.needs] == [recipes.recipe("at", "small+eps4")]


@pytest.mark.parametrize(
    "scale",
    [
        "small+",
        "small+eps4+eps5",
        "small+eps0",
        "small+eps8",
        "small+eps4+resnet34",
        "small+a+b",
        "small+given-",
        "small+given-a+given-b",
    ],
)
def test_a_bad_variation_says_what_one_looks_like(scale):
    with pytest.raises(ReproError, match=r"expected small, \+NETWORK, \+epsN for N/255"):
        recipes.recipe("st", scale)


def test_hashes_of_stored_results_stay():
    plain = json.loads(recipes.recipe("at").to_json())
    assert not plain.keys() & recipes.ADDED.keys()
    assert {name: getattr(recipes.recipe("at"), name) for name in recipes.ADDED} == recipes.ADDED
