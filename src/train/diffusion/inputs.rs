//! What a generator's networks are built from.

use std::path::Path;

use tch::{Device, Kind};

use crate::experiment::Generator;

/// What a generator's networks are built from.
pub(super) struct NetworkInputs<'a> {
    pub settings: &'a Generator,
    /// The folder that training starts from.
    pub base: Option<&'a Path>,
    /// Prompts of the training samples, then of the validation samples.
    pub prompts: &'a [String],
    /// How many of them belong to training samples.
    pub train_prompts: usize,
    /// The folder of an autoencoder that was trained from scratch.
    pub autoencoder: Option<&'a Path>,
    /// Classes that one unconditional model gets as an input; empty: none.
    pub classes: &'a [&'static str],
    /// For files that are made on the way (a learned tokenizer).
    pub work: &'a Path,
    pub kind: Kind,
    pub device: Device,
    pub seed: u64,
}
