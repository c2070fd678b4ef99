//! The names of the files in diffusers' folders.

pub(super) const INDEX: &str = "model_index.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const SCHEDULER_CONFIG: &str = "scheduler_config.json";

/// What a tokenizer's folder may hold.
pub(super) const TOKENIZER_FILES: [&str; 6] = [
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// The first part of a weight file's name.
pub(super) fn stem(library: &str) -> &'static str {
    if library == "transformers" { "model" } else { "diffusion_pytorch_model" }
}

/// The same of a checkpoint of PyTorch.
pub(super) fn checkpoint_stem(library: &str) -> &'static str {
    if library == "transformers" { "pytorch_model" } else { "diffusion_pytorch_model" }
}

/// A name that stays in the folder.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\'])
}
