//! Images through a network: files are read, decoded and resized on rayon while libtorch computes.

use std::{path::Path, sync::mpsc::sync_channel};

use rayon::prelude::*;
use tch::{Device, Tensor};

use super::{cache::Digest, resize::ExtractorInput, table::FeatureNetwork};
use crate::{
    error::{Error, Result},
    plain_file,
    progress::Bar,
};

/// Batches decoded ahead of their use.
const AHEAD: usize = 2;

/// The features of a list of files. Indices are those of the list.
#[derive(Debug)]
pub(super) struct ExtractedFeatures {
    /// Those that have features, in order.
    pub done: Vec<usize>,
    /// A row for each of them, f32.
    pub values: Tensor,
    /// Those that could not be read, and why.
    pub failed: Vec<(usize, String)>,
}

/// Files decoded into one buffer.
struct DecodedBatch {
    indices: Vec<usize>,
    values: Vec<f32>,
    failed: Vec<(usize, String)>,
}

/// A network at work.
pub(super) struct Extraction<'a> {
    pub network: &'a FeatureNetwork,
    pub input: &'a ExtractorInput,
    /// Length of a row of features.
    pub width: usize,
    pub device: Device,
    /// Images at a time.
    pub batch: usize,
    /// Files that cannot be read are left out.
    pub skip: bool,
}

impl Extraction<'_> {
    /// Features of `files`, whose contents must be those of the digests. Ends at the first batch with a file
    /// that cannot be read, unless `skip` is true.
    pub fn features(&self, files: &[(&Path, Digest)], bar: &Bar) -> Result<ExtractedFeatures> {
        let _guard = tch::no_grad_guard();
        let (mut done, mut failed, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (input, size) = (self.input, self.input.size() as i64);
        let chunk = self.batch.max(1);
        std::thread::scope(|scope| {
            let (sender, batches) = sync_channel::<DecodedBatch>(AHEAD);
            let ahead = scope.spawn(move || {
                let indices: Vec<usize> = (0..files.len()).collect();
                for indices in indices.chunks(chunk) {
                    // The receiver is gone after an error.
                    if sender.send(decode(input, files, indices)).is_err() {
                        break;
                    }
                }
            });
            let mut each = |batch: DecodedBatch| -> Result<()> {
                let (n, tried) = (batch.indices.len(), batch.indices.len() + batch.failed.len());
                failed.extend(batch.failed);
                if n > 0 {
                    let images = Tensor::f_from_slice(&batch.values)?.view([n as i64, size, size, 3]);
                    // Side by side in memory the channels already are.
                    let images = images.f_to_device(self.device)?.permute([0, 3, 1, 2]);
                    let found = (self.network)(&images)?.f_to_device(Device::Cpu)?;
                    values.extend(Vec::<f32>::try_from(found.flatten(0, -1))?);
                    done.extend(batch.indices);
                }
                bar.inc(tried as u64);
                Ok(())
            };
            let mut outcome = Ok(());
            for batch in batches {
                let stop = !batch.failed.is_empty() && !self.skip;
                outcome = each(batch);
                if stop || outcome.is_err() {
                    break;
                }
            }
            match ahead.join() {
                Ok(()) => outcome,
                // With its own message, which the scope's would hide.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        if values.iter().any(|v: &f32| !v.is_finite()) {
            return Err(Error::failure("the network's features are not finite")
                .help("the weights are damaged, or are another network's: convert them again"));
        }
        let values = Tensor::f_from_slice(&values)?.f_view([done.len() as i64, self.width as i64])?;
        Ok(ExtractedFeatures { done, values, failed })
    }
}

fn decode(input: &ExtractorInput, files: &[(&Path, Digest)], indices: &[usize]) -> DecodedBatch {
    let each = input.values();
    let mut values = vec![0f32; indices.len() * each];
    let one = |(&i, out): (&usize, &mut [f32])| -> Result<(), String> {
        let (path, digest) = files[i];
        let bytes = plain_file::read(path).map_err(|e| e.to_string())?;
        if *blake3::hash(&bytes).as_bytes() != digest {
            return Err("it changed while it was measured".into());
        }
        input.read(&bytes, out)
    };
    let read: Vec<Result<(), String>> =
        indices.par_iter().zip(values.par_chunks_exact_mut(each)).map(one).collect();
    let mut batch = DecodedBatch { indices: Vec::new(), values: Vec::new(), failed: Vec::new() };
    for (place, (&i, outcome)) in indices.iter().zip(read).enumerate() {
        match outcome {
            Err(why) => batch.failed.push((i, why)),
            Ok(()) => {
                // Closes the gaps that the others leave.
                let to = batch.indices.len();
                if to < place {
                    values.copy_within(place * each..(place + 1) * each, to * each);
                }
                batch.indices.push(i);
            }
        }
    }
    values.truncate(batch.indices.len() * each);
    batch.values = values;
    batch
}
