//! Networks, named as their checkpoints name them. Imports nothing of ours but errors and randomness.

pub mod init;
pub mod resnet;
pub mod unet;
pub mod weights;
