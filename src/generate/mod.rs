//! The conditioning modes, and the folders that generators are kept in.

pub mod folder;
pub mod folder_write;
mod weight_files;
