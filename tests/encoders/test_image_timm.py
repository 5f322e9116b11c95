"""timm's networks, taken apart: the same numbers as before, and blocks that mean something."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tenfold.encoders import build, check_encoder, own_size, save_encoder
from tenfold.encoders.image_timm import ImageTimm
from tenfold.errors import EncoderError

TINY = "mobilenetv3_small_050"
torch.set_num_threads(1)
slow = pytest.mark.slow


def _same_as_timm(encoder: ImageTimm, network: str, size: int, **options: object) -> None:
    """Against timm's own pass, and what a user of timm would have fed it."""
    torch.manual_seed(7)
    reference = timm.create_model(network, num_classes=0, **options).eval()
    card = reference.pretrained_cfg
    films = torch.rand(2, 1, size, size)
    mean, std = (torch.tensor(card[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        maps = reference.forward_features((films.repeat(1, 3, 1, 1) - mean) / std)
        expected = reference.forward_head(maps, pre_logits=True)
        torch.testing.assert_close(encoder(films), expected)


def _built(network: str, **options: object) -> ImageTimm:
    torch.manual_seed(7)
    encoder = build("image_timm", network=network, **options)
    assert isinstance(encoder, ImageTimm)
    return encoder.eval()


@pytest.mark.parametrize(
    ("network", "size", "first", "last", "blocks"),
    [
        ("resnet18", 64, "layer1.0", "layer4.1", 9),
        ("mobilenetv2_100", 64, "blocks.0.0", "conv_head", 19),
        ("convnext_atto", 64, "stages.0", "stages.3", 5),
        pytest.param("efficientnet_b0", 64, "blocks.0.0", "conv_head", 18, marks=slow),
        pytest.param("densenet121", 64, "features.denseblock1", "features.denseblock4", 8, marks=slow),
        pytest.param("inception_v3", 96, "Conv2d_2a_3x3", "Mixed_7c", 16, marks=slow),
        pytest.param("legacy_xception", 96, "block1", "conv4", 15, marks=slow),
        pytest.param("vgg11", 64, "features.3", "pre_logits", 6, marks=slow),
        pytest.param("vgg16", 64, "features.5", "pre_logits", 6, marks=slow),
    ],
)
def test_the_blocks_of_a_chain(network: str, size: int, first: str, last: str, blocks: int) -> None:
    encoder = _built(network)
    assert encoder.block_names[0] == "stem"
    assert encoder.block_names[1] == first
    assert encoder.block_names[-1] == last
    assert len(encoder.blocks) == blocks
    _same_as_timm(encoder, network, size)


@pytest.mark.parametrize(
    ("network", "size"),
    [
        pytest.param("resnet18", 64, marks=slow),
        pytest.param("mobilenetv2_100", 64, marks=slow),
        pytest.param("convnext_atto", 64, marks=slow),
        pytest.param("efficientnet_b0", 64, marks=slow),
        pytest.param("densenet121", 64, marks=slow),
        pytest.param("inception_v3", 80, marks=slow),
        pytest.param("legacy_xception", 80, marks=slow),
        pytest.param("vgg11", 64, marks=slow),
    ],
)
def test_the_contract_of_many_networks(network: str, size: int) -> None:
    check_encoder(build("image_timm", network=network), size)


def test_a_network_that_is_no_chain_is_one_block_at_the_size_asked_for() -> None:
    encoder = _built("eva02_tiny_patch14_224", size=56)
    assert encoder.block_names == ("whole",)
    assert encoder.size == 56
    check_encoder(encoder, 56)
    _same_as_timm(encoder, "eva02_tiny_patch14_224", 56, img_size=56)
    assert encoder.as_map(encoder(torch.zeros(1, 1, 56, 56), 0, 1), 1) is None


@pytest.mark.parametrize(
    ("network", "blocks", "prefix", "used"),
    [
        # the head reads the class token alone, so after the last block the patches are not used any more
        ("test_vit", 6, 1, 6),
        pytest.param("vit_tiny_patch16_224", 12, 1, 12, marks=slow),
        pytest.param("vit_small_patch16_224", 12, 1, 12, marks=slow),
        pytest.param("deit_tiny_distilled_patch16_224", 12, 2, 12, marks=slow),
        # the head reads the mean of the patches, or attends to them
        ("test_vit2", 8, 1, 9),
        ("test_vit3", 9, 1, 10),
    ],
)
def test_the_blocks_of_a_vision_transformer(network: str, blocks: int, prefix: int, used: int) -> None:
    encoder = _built(network, size=64)
    assert encoder.block_names == ("stem", *(f"blocks.{i}" for i in range(blocks)))
    _same_as_timm(encoder, network, 64, img_size=64)
    check_encoder(encoder, 64)
    with pytest.raises(EncoderError, match="64 x 64"):
        encoder(torch.zeros(1, 1, 96, 96))
    tokens = encoder(torch.rand(1, 1, 64, 64), 0, used)
    assert tokens.shape[1] == prefix + 16
    maps = encoder.as_map(tokens, used)
    assert torch.equal(maps[0, :, 2, 3], tokens[0, prefix + 2 * 4 + 3])
    assert encoder.as_map(tokens, used + 1) is None


@pytest.mark.parametrize("network", ["test_vit", "test_vit2"])
def test_two_thawed_blocks_of_a_vision_transformer_are_its_last_two(network: str) -> None:
    encoder = _built(network, size=64)
    encoder.freeze(len(encoder.blocks) - 2)
    learns = {name.split(".")[1] for name, p in encoder.blocks.named_parameters("blocks") if p.requires_grad}
    assert learns == {str(len(encoder.blocks) - k) for k in (1, 2)}
    assert all(p.requires_grad for p in encoder.pool.parameters())


def test_the_maps_of_a_swin_are_turned() -> None:
    encoder = _built("swin_tiny_patch4_window7_224")
    maps = encoder(torch.rand(1, 1, 224, 224), 0, 3)
    assert maps.shape[-1] > maps.shape[1]
    assert encoder.as_map(maps, 3).shape == (1, maps.shape[-1], *maps.shape[1:3])


def test_positions_of_weights_for_another_size_are_interpolated(tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = timm.create_model("test_vit", img_size=64)
    path = tmp_path / "vit.safetensors"
    save_file(dict(plain.state_dict()), path)
    same = build("image_timm", network="test_vit", size=64, weights=str(path)).blocks[0].tokens.network
    assert torch.equal(same.pos_embed, plain.pos_embed)
    larger = build("image_timm", network="test_vit", size=96, weights=str(path)).blocks[0].tokens.network
    grids = [t[:, same.num_prefix_tokens :].mean(1) for t in (larger.pos_embed, plain.pos_embed)]
    assert larger.pos_embed.shape[1] > plain.pos_embed.shape[1]
    torch.testing.assert_close(*grids, atol=0.01, rtol=0)
    broken = {**plain.state_dict(), "pos_embed": plain.pos_embed.detach()[:, :-2].clone()}
    save_file(broken, path)
    with pytest.raises(EncoderError, match="other shape: pos_embed"):
        build("image_timm", network="test_vit", size=96, weights=str(path))


def test_no_tensor_is_held_twice() -> None:
    for network in (TINY, "convnext_atto", "vit_tiny_patch16_224"):
        encoder = _built(network)
        places = [tensor.data_ptr() for tensor in encoder.state_dict().values()]
        assert len(set(places)) == len(places)
        plain = timm.create_model(network, num_classes=0)
        assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in plain.parameters())


def test_the_own_size_is_known_without_building() -> None:
    assert own_size("image_timm", network="inception_v3") == 299
    assert own_size("image_timm", network="vgg16", channels=3) == 224
    assert own_size("image_timm", network="vit_tiny_patch16_224", size=64) == 64
    assert own_size("image_residual_dilated") == 150


def _timm_file(path: Path, change: dict[str, torch.Tensor | None] | None = None, **metadata: str) -> Path:
    torch.manual_seed(3)
    tensors = dict(timm.create_model(TINY).state_dict())
    for key, value in (change or {}).items():
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    save_file(tensors, path, metadata=metadata)
    return path


def test_weights_by_timm_s_names_are_loaded_without_the_classifier(tmp_path: Path) -> None:
    path = _timm_file(tmp_path / "w.safetensors", {"bn1.num_batches_tracked": None})
    encoder = build("image_timm", network=TINY, weights=str(path))
    tensors = load_file(path)
    torch.testing.assert_close(encoder.blocks[0].conv_stem.weight, tensors["conv_stem.weight"])
    torch.testing.assert_close(encoder.pool.state_dict()["network.conv_head.bias"], tensors["conv_head.bias"])
    assert str(tmp_path) not in str(encoder.spec)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conv_stem.weight": None}, "missing: conv_stem.weight"),
        ({"foreign.weight": torch.zeros(2)}, "unexpected: foreign.weight"),
        ({"conv_stem.weight": torch.zeros(16, 1, 3, 3)}, "other shape: conv_stem.weight"),
        ({"conv_stem.weight": torch.full((16, 3, 3, 3), torch.nan)}, "not finite: conv_stem.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, torch.Tensor | None], says: str
) -> None:
    path = _timm_file(tmp_path / "w.safetensors", change)
    with pytest.raises(EncoderError, match=says):
        build("image_timm", network=TINY, weights=str(path))


def test_a_file_that_is_missing_or_not_safetensors_is_refused(tmp_path: Path) -> None:
    for content in (None, b"", b"PK\x03\x04 a pickle in a zip"):
        path = tmp_path / "w.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EncoderError, match="cannot be read"):
            build("image_timm", network=TINY, weights=str(path))


def test_a_file_without_tensors_does_not_pass_for_weights(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="missing"):
        build("image_timm", network=TINY, weights=str(tmp_path / "w.safetensors"))


def test_mean_and_std_come_from_the_options_then_the_file_then_timm(tmp_path: Path) -> None:
    path = str(_timm_file(tmp_path / "w.safetensors", mean="0.5,0.5,0.5", std="0.5"))

    def scale(**options: object) -> tuple[list[float], list[float]]:
        given = build("image_timm", network=TINY, **options).spec["options"]
        return given["mean"], given["std"]

    assert scale() == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert scale(weights=path) == ([0.5] * 3, [0.5] * 3)
    assert scale(weights=path, mean=[0.1, 0.2, 0.3]) == ([0.1, 0.2, 0.3], [0.5] * 3)


@pytest.mark.parametrize("name", ["image_timm", "image_residual_dilated"])
def test_what_was_saved_is_loaded_again(tmp_path: Path, name: str) -> None:
    options = {"network": TINY, "mean": 0.4} if name == "image_timm" else {"width": 8, "depths": [1, 1, 1, 1]}
    encoder = build(name, **options).eval()
    save_encoder(encoder, tmp_path / "e.safetensors")
    options.pop("mean", None)
    again = build(name, weights=str(tmp_path / "e.safetensors"), **options).eval()
    films = torch.rand(2, 1, 64, 64)
    assert torch.equal(again(films), encoder(films))
    assert again.spec == encoder.spec


def test_another_network_s_saved_encoder_is_refused(tmp_path: Path) -> None:
    save_encoder(build("image_timm", network=TINY), tmp_path / "e.safetensors")
    with pytest.raises(EncoderError, match="missing"):
        build("image_residual_dilated", width=8, depths=[1, 1, 1, 1], weights=str(tmp_path / "e.safetensors"))
    path = _timm_file(tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="did not save"):
        build("image_residual_dilated", width=8, depths=[1, 1, 1, 1], weights=str(path))


def test_imagenet_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(EncoderError, match=r"weights = the path of a \.safetensors file, or weights = 'none'"):
        build("image_timm", network=TINY, weights="imagenet")


def test_imagenet_is_refused_at_once_where_timm_has_no_such_weights() -> None:
    with pytest.raises(EncoderError, match="timm has no weights"):
        build("image_timm", network="botnet50ts_256", weights="imagenet")


@pytest.mark.shared
def test_the_real_weights_load_with_their_own_scale(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"
    encoder = build("image_timm", network="mobilenetv2_100", weights=str(path)).eval()
    assert encoder.spec["options"]["mean"] == [0.5, 0.5, 0.5]
    reference = timm.create_model("mobilenetv2_100").eval()
    reference.load_state_dict(load_file(path), strict=False)
    films = torch.rand(1, 1, 96, 96)
    with torch.no_grad():
        maps = reference.forward_features((films.repeat(1, 3, 1, 1) - 0.5) / 0.5)
        torch.testing.assert_close(encoder(films), reference.forward_head(maps, pre_logits=True))


def test_output_stride_dilates_with_the_same_weights() -> None:
    torch.manual_seed(0)
    plain = build("image_timm", network="resnet18").eval()
    dilated = build("image_timm", network="resnet18", output_stride=8).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.rand(1, 1, 64, 64)
    assert plain(x, 0, plain.depth - 1).shape[-1] == 2
    assert dilated(x, 0, dilated.depth - 1).shape[-1] == 8


def test_a_network_that_cannot_be_dilated_says_so() -> None:
    with pytest.raises(EncoderError, match="output_stride"):
        build("image_timm", network="vgg11", output_stride=8)
