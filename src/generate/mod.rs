//! Synthetic images: a data set of them for an experiment, or a folder for `synecho sample`.

pub mod dataset;
pub mod sample;
