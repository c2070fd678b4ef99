//! What can be known to fail before hours of work, where the data can be looked at already.

use super::{outside::is_manifest_folder, stages::assign_split};
use crate::{
    data,
    error::{Error, Result},
    manifest::{Manifest, Split},
    spec::{Mode, ResolvedSpec, Source},
};

/// Whether every arm's ratio can be had: as many synthetic images as it asks for. Data that has to be imported
/// first is looked at when it is there.
///
/// # Errors
/// An arm asks for more images than its generator makes, or the data set has no such split.
pub fn preflight(spec: &ResolvedSpec) -> Result<()> {
    let manifest = matches!(spec.data.source, Source::Folder | Source::Camus);
    let root = spec.data.root.as_ref().filter(|root| manifest && is_manifest_folder(root));
    let mixed = spec.arms.iter().any(|arm| arm.synthetic.is_some());
    let Some(root) = root.filter(|_| mixed) else { return Ok(()) };
    let mut manifest = Manifest::read(root)?;
    assign_split(&mut manifest, &spec.data.split)?;
    for arm in &spec.arms {
        let (Some(name), Some(ratio)) = (&arm.synthetic, arm.ratio) else { continue };
        let generator = &spec.generators[name];
        let made = match generator.mode {
            Mode::External if is_manifest_folder(&generator.folder) => {
                Manifest::read(&generator.folder)?.rows.len()
            }
            Mode::External => continue,
            _ => 4 * generator.per_class_images,
        };
        for &seed in &spec.experiment.seeds {
            let patients = data::split::fraction(&manifest, arm.real_fraction, seed);
            let of_arm = |patient: &String| arm.real_fraction == 1.0 || patients.contains(patient);
            let real = manifest.of(Split::Train).filter(|row| of_arm(&row.patient)).count();
            let asked = (real as f64 * ratio).round() as usize;
            if asked > made {
                return Err(Error::input(format!(
                    "the arm {:?} asks for {asked} synthetic images beside {real} real ones: {name} makes {made}",
                    arm.name
                ))
                .help(match generator.mode {
                    Mode::External => "lower its ratio, or make more images".to_owned(),
                    _ => format!(
                        "lower its ratio, or set generators.{name}.per_class_images = {}",
                        asked.div_ceil(4)
                    ),
                }));
            }
        }
    }
    Ok(())
}
