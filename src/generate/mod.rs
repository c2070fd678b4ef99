//! Synthetic images: diffusers' folders, read and written, and the three conditioning modes that sample
//! from them.

pub mod folder;
pub mod noise;
pub mod pipeline;
pub mod sample;
