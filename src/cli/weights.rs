//! `synecho weights`: what a file of weights holds, and the same as safetensors.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tch::Kind;

use super::output::{print, print_json};
use crate::{
    error::{Error, Result},
    nn::tensor_file::{self, TensorFile},
};

#[derive(Debug, Subcommand)]
pub(super) enum WeightsCommand {
    /// Print the names, types and shapes of a file's tensors
    #[command(
        after_help = "Examples:\n  synecho weights show resnet18-f37072fd.pth\n  synecho weights show last.ckpt --json\n\nNothing in a checkpoint is executed: only tensors and plain containers are read."
    )]
    Show {
        #[command(flatten)]
        source: WeightsSource,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Write a file's tensors as safetensors
    #[command(
        after_help = "Examples:\n  synecho weights convert pt_inception-2015-12-05-6726825d.pth --to inception.safetensors\n  synecho weights convert last.ckpt --key ema --to ema.safetensors\n\nTypes and values stay as they are. Tensors that share memory in the checkpoint are written once each."
    )]
    Convert {
        #[command(flatten)]
        source: WeightsSource,
        /// The file to write; it must not be there yet
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct WeightsSource {
    /// A safetensors file, or a checkpoint of PyTorch (.pth, .pt, .bin, .ckpt)
    file: PathBuf,
    /// Of a checkpoint with several networks' weights: the entry to take, ema for instance
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
}

impl WeightsSource {
    fn open(&self) -> Result<TensorFile> {
        TensorFile::open_part(&self.file, self.key.as_deref())
    }
}

pub(super) fn carry_out(command: &WeightsCommand) -> Result<u8> {
    match command {
        WeightsCommand::Show { source, json } => show(&source.open()?, *json),
        WeightsCommand::Convert { source, to } => convert(source, to),
    }
}

/// A type by its usual short name.
fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::Double => "f64",
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        Kind::Int64 => "i64",
        Kind::Int => "i32",
        Kind::Int16 => "i16",
        Kind::Int8 => "i8",
        Kind::Uint8 => "u8",
        Kind::Bool => "bool",
        _ => "other",
    }
}

fn parameters(file: &TensorFile) -> u64 {
    file.entries().iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.elements()))
}

fn show(file: &TensorFile, as_json: bool) -> Result<u8> {
    if as_json {
        let tensors: Vec<_> = file
            .entries()
            .iter()
            .map(|entry| json!({"name": entry.name, "type": type_name(entry.kind), "shape": entry.shape}))
            .collect();
        return print_json(&json!({
            "file": file.path(),
            "format": file.format(),
            "note": file.note(),
            "parameters": parameters(file),
            "tensors": tensors,
        }));
    }
    let mut text = headline(file);
    for entry in file.entries() {
        // A name comes from the file: nothing of it may steer a terminal.
        text +=
            &format!("  {:<4}  {:?}  {}\n", type_name(entry.kind), entry.shape, entry.name.escape_debug());
    }
    print(&text)
}

fn headline(file: &TensorFile) -> String {
    let note = file.note().map(|note| format!("{note}\n")).unwrap_or_default();
    format!(
        "{}: {}, {} tensors, {} parameters (buffers included)\n{note}",
        file.path().display(),
        file.format(),
        file.entries().len(),
        parameters(file)
    )
}

fn convert(source: &WeightsSource, to: &Path) -> Result<u8> {
    let file = source.open()?;
    if to.exists() {
        return Err(Error::input("the file is there already").at(to).help("name another, or remove it"));
    }
    // Whole or not at all: what is written so far lies beside the place.
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = to.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = tensor_file::convert(&file, &partial).and_then(|()| {
        std::fs::rename(&partial, to)
            .map_err(|e| Error::failure(format!("cannot write the weights: {e}")).at(to))
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    print(&format!("{}the same tensors are in {}\n", headline(&file), to.display()))
}
