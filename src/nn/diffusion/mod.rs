//! The parts that diffusers' networks are built of, equal to diffusers 0.42.1: variable paths are its
//! state-dict keys. Activations keep the memory format of the network's input: what comes in
//! channels-last stays so.

pub(crate) mod attention;
pub mod config;
pub(crate) mod layers;
pub(crate) mod resnet_block;
pub(crate) mod sampling;
pub(crate) mod time_embedding;
pub(crate) mod transformer;
pub(crate) mod trunk;
pub(crate) mod unet_blocks;

#[cfg(test)]
mod tests;
