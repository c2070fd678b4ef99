//! Synthetic images: diffusers' folders, read and written, and the three conditioning modes that sample
//! from them.

pub mod folder;
pub mod folder_write;
pub mod noise;
pub mod pipeline;
pub mod sample;
mod weight_files;
