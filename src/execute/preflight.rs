//! What can be known to fail before hours of work, where the data can be looked at already.

use super::{
    outside::is_manifest_folder,
    stages::{assign_split, mixing},
};
use crate::{
    data,
    error::{Error, Result},
    generate::dataset,
    manifest::{Manifest, Split},
    plan,
    spec::{Mode, ResolvedSpec, Source},
};

/// Whether every generator has the classes and masks that its images are made from, and every arm as many
/// synthetic images as it asks for, with masks where it trains segmentation. Data that has to be imported first is
/// looked at when it is there.
///
/// # Errors
/// One of these is missing, or the data set has no such split.
pub fn preflight(spec: &ResolvedSpec) -> Result<()> {
    let manifest = matches!(spec.data.source, Source::Folder | Source::Camus);
    let root = spec.data.root.as_ref().filter(|root| manifest && is_manifest_folder(root));
    let Some(root) = root.filter(|_| !spec.generators.is_empty()) else { return Ok(()) };
    let mut manifest = Manifest::read(root)?;
    assign_split(&mut manifest, &spec.data.split)?;
    for (name, patients) in plan::generator_cells(spec) {
        let settings = &spec.generators[name];
        if settings.mode != Mode::External {
            let patients = mixing::arm_patients(&manifest, patients);
            let checked = dataset::check(settings, &manifest, patients.as_deref());
            checked.map_err(|error| error.context(format!("the generator {name}")))?;
        }
    }
    for arm in &spec.arms {
        let (Some(name), Some(ratio)) = (&arm.synthetic, arm.ratio) else { continue };
        let generator = &spec.generators[name];
        let made = match generator.mode {
            Mode::External if is_manifest_folder(&generator.folder) => {
                let made = Manifest::read(&generator.folder)?.rows;
                let maskless = made.iter().filter(|row| row.mask.is_none()).count();
                if maskless > 0 && spec.tasks.segmentation.is_some() && !generator.pseudo_masks {
                    return Err(Error::input(format!(
                        "the arm {:?} trains segmentation on images of {name}, of which {maskless} have no mask",
                        arm.name
                    ))
                    .help(format!(
                        "set generators.{name}.pseudo_masks = true, or leave [tasks.segmentation] out"
                    )));
                }
                made.len()
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
