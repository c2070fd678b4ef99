"""Outputs of transformers' CLIPTextModel on weights that Rust makes alike."""

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from common import FIXTURES, fill, uniform, write_json

torch.set_grad_enabled(False)

CASES = {
    "quick_gelu": dict(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act="quick_gelu",
        eos_token_id=599,
    ),
    # Stable Diffusion 2's activation, and the end-of-text id of old.
    "gelu": dict(
        vocab_size=300,
        hidden_size=48,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=3,
        hidden_act="gelu",
        layer_norm_eps=1e-3,
        eos_token_id=2,
    ),
    "deep": dict(
        vocab_size=1000,
        hidden_size=40,
        intermediate_size=37,
        num_hidden_layers=5,
        num_attention_heads=8,
        max_position_embeddings=21,
        hidden_act="quick_gelu",
        eos_token_id=7,
    ),
}
# The variables are named as transformers 4 names them.
PREFIX = "text_model"

tensors, configs, keys = {}, {}, {}
for key, values in CASES.items():
    config = CLIPTextConfig(**values, bos_token_id=0, pad_token_id=1)
    model = CLIPTextModel(config).eval()
    fill(torch.nn.ModuleDict({PREFIX: model}), key)
    configs[key] = config.to_dict() | {"architectures": ["CLIPTextModel"]}
    keys[key] = sorted(model.state_dict())
    longest = config.max_position_embeddings
    for length in (longest, longest // 2):
        name = f"{key}/{length}"
        ids = torch.from_numpy(uniform(f"{name}/ids", 2 * length) * config.vocab_size).long().reshape(2, length)
        # The first row ends before its end, with several end-of-text tokens as padding.
        ids[0, length - 5 :] = config.eos_token_id
        ids[1, length - 1] = config.eos_token_id
        out = model(ids, output_hidden_states=True)
        tensors[f"{name}/ids"] = ids
        tensors[f"{name}/last"] = out.last_hidden_state
        tensors[f"{name}/pooled"] = out.pooler_output
        # As diffusers' pipelines take an earlier layer.
        for clip_skip in (1, 2):
            hidden = model.final_layer_norm(out.hidden_states[-(clip_skip + 1)])
            tensors[f"{name}/skip{clip_skip}"] = hidden
        print(name, sum(p.numel() for p in model.parameters()), "parameters, std", out.last_hidden_state.std().item())

save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, FIXTURES / "clip.safetensors")
print("clip.safetensors", (FIXTURES / "clip.safetensors").stat().st_size, "bytes")
write_json("clip.json", {"configs": configs, "keys": keys})
