"""Outputs of diffusers' networks on weights and inputs that Rust makes alike.

`diffusion_networks.json` holds each case's config.json as diffusers writes it, what it is run on, a
digest of its state dict's keys and shapes, and a `wrong` value that must be seen in the output.
`diffusion_networks.safetensors` holds parts of the outputs: at most 1024 values each, evenly spread."""

import json

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

from common import FIXTURES, fill, signal, write_json

torch.set_grad_enabled(False)
KEPT = 1024


def part(out: torch.Tensor) -> torch.Tensor:
    """Every n-th value, n odd, so that all columns are seen."""
    step = -(-out.numel() // KEPT)
    return out.flatten()[:: step + (step % 2 == 0)].clone()


def digest(module: torch.nn.Module) -> str:
    """FNV-1a of the sorted keys and shapes."""
    h = 0xCBF29CE484222325
    for key, tensor in sorted(module.state_dict().items()):
        for byte in f"{key} {list(tensor.shape)}\n".encode():
            h = ((h ^ byte) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def labels(run, name):
    """A list as it is; a shape as numbers."""
    given = run.get("class_labels")
    if given is None:
        return None
    return signal(f"{name}/class_labels", given["shape"]) if isinstance(given, dict) else torch.tensor(given)


def outputs(net, run, name) -> dict[str, torch.Tensor]:
    size = run["size"]
    x = signal(f"{name}/sample", (size[0], net.config.in_channels, *size[1:]))
    if isinstance(net, AutoencoderKL):
        posterior = net.encode(x).latent_dist
        z = signal(f"{name}/latents", tuple(posterior.mean.shape))
        return {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": net.decode(z).sample}
    t = torch.tensor(run["timesteps"])
    if isinstance(net, UNet2DModel):
        return {"sample": net(x, t, class_labels=labels(run, name)).sample}
    context = signal(f"{name}/context", (size[0], run["tokens"], run["context"]))
    if isinstance(net, ControlNetModel):
        factor = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
        shape = (size[0], net.config.conditioning_channels, size[1] * factor, size[2] * factor)
        control = signal(f"{name}/control", shape) * 0.5 + 0.5
        down, mid = net(x, t, context, control, conditioning_scale=run["scale"], return_dict=False)
        return {f"down{i}": d for i, d in enumerate(down)} | {"mid": mid}
    extra = {}
    if run.get("residuals"):
        # As many and as large as the network's own: found by looking.
        shapes = run["residuals"]
        residuals = [signal(f"{name}/residual{i}", tuple(s)) for i, s in enumerate(shapes)]
        extra = {"down_block_additional_residuals": residuals[:-1], "mid_block_additional_residual": residuals[-1]}
    return {"sample": net(x, t, context, class_labels=labels(run, name), **extra).sample}


def residual_shapes(net, size):
    """What a ControlNet gives to this network."""
    channels, layers = net.config.block_out_channels, net.config.layers_per_block
    shapes, (h, w) = [(channels[0], *size[1:])], size[1:]
    for i, c in enumerate(channels):
        shapes += [(c, h, w)] * layers
        if i + 1 < len(channels):
            h, w = -(-h // 2), -(-w // 2)
            shapes.append((c, h, w))
    return [(size[0], *s) for s in [*shapes, shapes[-1]]]


def make(cases, file):
    tensors, written = {}, []
    for cls, key, config, wrong, runs in cases:
        net = cls(**config)
        fill(net, key)
        net.eval()
        for i, run in enumerate(runs):
            if run.get("residuals") is True:
                run["residuals"] = residual_shapes(net, run["size"])
            for what, out in outputs(net, run, f"{key}/{i}").items():
                assert out.isfinite().all() and out.std() > 1e-3, (key, i, what, out.std())
                print(f"{key}/{i}/{what}", tuple(out.shape), f"std {out.std():.3g} max {out.abs().max():.3g}")
                tensors[f"{key}/{i}/{what}"] = part(out)
        config = json.loads(net.to_json_string())
        written.append(
            {
                "key": key,
                "config": config,
                "variables": len(net.state_dict()),
                "digest": digest(net),
                "wrong": wrong,
                "runs": runs,
            }
        )
    write_json(f"{file}.json", written)
    save_file(tensors, FIXTURES / f"{file}.safetensors")
    print(f"{file}.safetensors", (FIXTURES / f"{file}.safetensors").stat().st_size, "bytes")


DOWN, ATTN_DOWN, CROSS_DOWN = "DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"
UP, ATTN_UP, CROSS_UP = "UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D"


def unet2d(key, wrong, runs, **config):
    return UNet2DModel, key, config, wrong, runs


def condition(key, wrong, runs, **config):
    return UNet2DConditionModel, key, config, wrong, runs


def controlnet(key, wrong, runs, **config):
    return ControlNetModel, key, config, wrong, runs


def vae(key, wrong, runs, **config):
    levels = len(config["block_out_channels"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    return AutoencoderKL, key, config | blocks, wrong, runs


CASES = [
    # The reference's network, a quarter as wide.
    unet2d(
        "unet2d_reference",
        {"flip_sin_to_cos": False},
        [{"size": [2, 64, 64], "timesteps": [0, 999]}, {"size": [1, 32, 96], "timesteps": [500]}],
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 16, 32, 32, 64, 64),
        norm_num_groups=8,
        down_block_types=(DOWN, DOWN, DOWN, DOWN, ATTN_DOWN, DOWN),
        up_block_types=(UP, ATTN_UP, UP, UP, UP, UP),
    ),
    # Scale and shift, resampling by residual blocks, one head, padding below and on the right.
    unet2d(
        "unet2d_scale_shift",
        {"freq_shift": 0},
        [{"size": [2, 24, 40], "timesteps": [3, 721]}],
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        norm_num_groups=4,
        norm_eps=1e-6,
        down_block_types=(DOWN, ATTN_DOWN, ATTN_DOWN),
        up_block_types=(ATTN_UP, ATTN_UP, UP),
        attention_head_dim=None,
        downsample_padding=0,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        flip_sin_to_cos=False,
        freq_shift=1,
        mid_block_scale_factor=1.4,
    ),
    # Classes, attention everywhere, Mish, the lowest level's norm in other groups.
    unet2d(
        "unet2d_classes",
        {"center_input_sample": False},
        [{"size": [3, 16, 16], "timesteps": [1, 10, 100], "class_labels": [0, 4, 2]}],
        in_channels=2,
        out_channels=4,
        block_out_channels=(24, 40),
        norm_num_groups=8,
        attn_norm_num_groups=5,
        down_block_types=(ATTN_DOWN, ATTN_DOWN),
        up_block_types=(ATTN_UP, ATTN_UP),
        attention_head_dim=4,
        center_input_sample=True,
        act_fn="mish",
        num_class_embeds=5,
        time_embedding_dim=56,
    ),
    # Fourier features of noise levels, no lowest level's attention.
    unet2d(
        "unet2d_fourier",
        {"act_fn": "relu"},
        [{"size": [2, 16, 8], "timesteps": [0.6, 3.25], "class_labels": [1.5, 7.0]}],
        block_out_channels=(16, 32),
        norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D", DOWN),
        up_block_types=(UP, "ResnetUpsampleBlock2D"),
        time_embedding_type="fourier",
        add_attention=False,
        act_fn="gelu",
        class_embed_type="timestep",
    ),
    # Stable Diffusion 1.x, an eighth as wide; odd sizes; with a ControlNet's residuals.
    condition(
        "condition_sd1",
        {"attention_head_dim": 4},
        [
            {"size": [2, 16, 24], "timesteps": [17, 981], "tokens": 77, "context": 48},
            {"size": [1, 19, 10], "timesteps": [981], "tokens": 5, "context": 48},
            {"size": [2, 16, 16], "timesteps": [1, 501], "tokens": 7, "context": 48, "residuals": True},
        ],
        block_out_channels=(40, 80, 160, 160),
        norm_num_groups=8,
        cross_attention_dim=48,
        attention_head_dim=8,
    ),
    # Stable Diffusion 2.x: linear projections, heads per level.
    condition(
        "condition_sd2",
        {"attention_head_dim": [8, 4, 2, 2]},
        [
            {"size": [2, 16, 16], "timesteps": [0, 999], "tokens": 77, "context": 64},
            {"size": [1, 9, 15], "timesteps": [250], "tokens": 77, "context": 64},
        ],
        block_out_channels=(32, 64, 96, 96),
        norm_num_groups=16,
        cross_attention_dim=64,
        attention_head_dim=[2, 4, 8, 8],
        use_linear_projection=True,
        upcast_attention=True,
    ),
    # Lists per level, several transformer layers, scale and shift, projected classes beside the time.
    condition(
        "condition_lists",
        {"mid_block_scale_factor": 1},
        [
            {"size": [2, 12, 14], "timesteps": [4, 40], "tokens": 3, "context": 24, "class_labels": {"shape": [2, 6]}}
        ],
        in_channels=9,
        block_out_channels=(16, 24, 32),
        layers_per_block=[1, 2, 1],
        transformer_layers_per_block=[1, 3, 2],
        norm_num_groups=4,
        cross_attention_dim=[24, 24, 24],
        attention_head_dim=[4, 3, 2],
        down_block_types=(CROSS_DOWN, DOWN, CROSS_DOWN),
        up_block_types=(UP, CROSS_UP, CROSS_UP),
        resnet_time_scale_shift="scale_shift",
        mid_block_scale_factor=1.2,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=6,
        class_embeddings_concat=True,
        act_fn="gelu",
        downsample_padding=0,
        conv_in_kernel=5,
        conv_out_kernel=1,
        time_embedding_dim=40,
        center_input_sample=True,
    ),
    # A plain lowest level, Fourier features.
    condition(
        "condition_plain",
        {"flip_sin_to_cos": False},
        [{"size": [1, 7, 8], "timesteps": [0.25], "tokens": 2, "context": 8}],
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=8,
        attention_head_dim=3,
        down_block_types=(CROSS_DOWN, DOWN),
        up_block_types=(UP, CROSS_UP),
        mid_block_type="UNetMidBlock2D",
        time_embedding_type="fourier",
        layers_per_block=1,
    ),
    # The text pooled into the time embedding as well, with its heads; and with nothing else that sees it.
    condition(
        "condition_text_embed",
        {"addition_embed_type_num_heads": 2},
        [{"size": [2, 8, 8], "timesteps": [1, 700], "tokens": 7, "context": 24}],
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=4,
        down_block_types=(DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, UP),
        layers_per_block=1,
        addition_embed_type="text",
        addition_embed_type_num_heads=6,
    ),
    condition(
        "condition_text_embed_alone",
        {"addition_embed_type_num_heads": 4},
        [{"size": [1, 8, 8], "timesteps": [300], "tokens": 3, "context": 16}],
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=16,
        down_block_types=(DOWN, DOWN),
        up_block_types=(UP, UP),
        mid_block_type="UNetMidBlock2D",
        layers_per_block=1,
        addition_embed_type="text",
        addition_embed_type_num_heads=1,
    ),
    controlnet(
        "controlnet_text_embed",
        {"addition_embed_type_num_heads": 1},
        [{"size": [2, 8, 8], "timesteps": [1, 700], "tokens": 7, "context": 24, "scale": 1.0}],
        block_out_channels=(16, 32),
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=4,
        down_block_types=(DOWN, CROSS_DOWN),
        layers_per_block=1,
        conditioning_embedding_out_channels=(4, 8),
        addition_embed_type="text",
        addition_embed_type_num_heads=3,
    ),
    controlnet(
        "controlnet_sd1",
        {"controlnet_conditioning_channel_order": "bgr"},
        [
            {"size": [2, 8, 16], "timesteps": [17, 981], "tokens": 77, "context": 48, "scale": 1.0},
            {"size": [1, 9, 7], "timesteps": [0], "tokens": 4, "context": 48, "scale": 0.35},
        ],
        block_out_channels=(40, 80, 160, 160),
        norm_num_groups=8,
        cross_attention_dim=48,
    ),
    controlnet(
        "controlnet_bgr",
        {"controlnet_conditioning_channel_order": "rgb"},
        [{"size": [2, 8, 8], "timesteps": [1, 501], "tokens": 6, "context": 32, "scale": 1.7}],
        block_out_channels=(32, 64),
        norm_num_groups=16,
        cross_attention_dim=32,
        attention_head_dim=[2, 8],
        transformer_layers_per_block=[2, 1],
        use_linear_projection=True,
        controlnet_conditioning_channel_order="bgr",
        conditioning_embedding_out_channels=(6, 10),
        down_block_types=(CROSS_DOWN, CROSS_DOWN),
    ),
    controlnet(
        "controlnet_plain",
        {"num_attention_heads": 4},
        [{"size": [1, 8, 4], "timesteps": [33], "tokens": 6, "context": 16, "scale": -0.5}],
        conditioning_channels=1,
        in_channels=3,
        block_out_channels=(16, 24, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=5,
        num_attention_heads=8,
        conditioning_embedding_out_channels=(4, 8, 12),
        down_block_types=(DOWN, CROSS_DOWN, DOWN),
        mid_block_type="UNetMidBlock2D",
        resnet_time_scale_shift="scale_shift",
        act_fn="relu",
        freq_shift=1,
        flip_sin_to_cos=False,
        mid_block_scale_factor=2,
        downsample_padding=0,
    ),
    # Stable Diffusion's, an eighth as wide.
    vae(
        "vae_sd",
        {"act_fn": "gelu"},
        [{"size": [2, 32, 48]}, {"size": [1, 37, 50]}],
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
    ),
    vae(
        "vae_grey",
        {"act_fn": "silu"},
        [{"size": [2, 16, 16]}],
        in_channels=1,
        out_channels=2,
        latent_channels=3,
        block_out_channels=(12, 24),
        norm_num_groups=6,
        mid_block_add_attention=False,
        act_fn="relu",
        use_quant_conv=False,
        sample_size=[16, 24],
    ),
    vae(
        "vae_one_level",
        {"act_fn": "mish"},
        [{"size": [1, 5, 9]}],
        block_out_channels=(20,),
        latent_channels=8,
        norm_num_groups=10,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        force_upcast=False,
    ),
]

if __name__ == "__main__":
    make(CASES, "diffusion_networks")
