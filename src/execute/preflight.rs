//! What can be known to fail before hours of work, where the data can be looked at already.

use std::path::{Path, PathBuf};

use super::{
    outside::{self, is_manifest_folder, manifest_root},
    stages::mixing,
};
use crate::{
    data,
    error::{Error, Result},
    experiment::ResolvedSpec,
    generate::dataset,
    manifest::{DATA, Manifest},
    plan::{self, Plan, Work},
    store::{Digests, Store},
    vocabulary::{Mode, Split, VIEW_PHASES},
};

/// The data set as an earlier run imported it, where one did.
pub fn imported(plan: &Plan, store: &Store, digests: &Digests) -> Option<PathBuf> {
    let stage = plan.stages.iter().find(|stage| matches!(stage.work, Work::Import { .. }))?;
    let there = matches!(store.lookup(stage.kind(), &stage.key, digests), Ok(Some(_)));
    there.then(|| store.artifact(stage.kind(), &stage.key).join(DATA))
}

/// Checks before any work what the files that the spec names show: that weights fit their networks, that pictures can be
/// opened, that the published figures can be read, and what [`preflight_data`] checks. `missing`: faults that are known
/// already. All that is wrong is reported at once.
///
/// # Errors
/// One of these checks fails.
pub fn preflight(spec: &ResolvedSpec, missing: Vec<Error>) -> Result<()> {
    let mut faults = missing;
    faults.extend(outside::faults(spec));
    // A manifest that cannot be read is found twice.
    let known = |fault: &Error| faults.iter().any(|other| other.to_string() == fault.to_string());
    faults.extend(preflight_data(spec, None).err().filter(|fault| !known(fault)));
    Error::all(faults)
}

/// Checks that every generator has the classes and masks that its images are made from; and that every arm has as many
/// synthetic images as it asks for, with masks where it trains segmentation, and from its own training patients. A data
/// set that needs an import is checked in `imported`, where an earlier run put it.
///
/// # Errors
/// One of these checks fails, or the data set does not allow the split.
pub fn preflight_data(spec: &ResolvedSpec, imported: Option<&Path>) -> Result<()> {
    let Some(root) = manifest_root(&spec.data).or(imported) else { return Ok(()) };
    let mut manifest = Manifest::read(root)?;
    data::split::assign(&mut manifest, &spec.data.split)?;
    for cell in plan::generator_cells(spec) {
        let settings = &spec.generators[&cell.name];
        if settings.mode != Mode::External {
            let patients = mixing::arm_patients(&manifest, cell.patients);
            let checked = dataset::check(settings, &manifest, patients.as_deref());
            checked.map_err(|error| error.context(format!("the generator {}", cell.name)))?;
        }
    }
    // Without a task an arm only names the patients that a generator is trained on.
    let trains = spec.tasks.segmentation.is_some() || spec.tasks.classification.is_some();
    for arm in spec.arms.iter().filter(|_| trains) {
        let Some(ratio) = arm.ratio else { continue };
        let name = arm.synthetic.as_deref().unwrap_or_default();
        let generator = spec.generators.get(name);
        let external = generator.filter(|g| g.mode == Mode::External && is_manifest_folder(&g.source.folder));
        let external = external.map(|g| Manifest::read(&g.source.folder)).transpose()?;
        let made = match (&external, generator) {
            (Some(made), Some(generator)) => {
                let maskless = made.rows.iter().filter(|row| row.mask.is_none()).count();
                if maskless > 0 && spec.tasks.segmentation.is_some() && !generator.sampling.pseudo_masks {
                    return Err(Error::input(format!(
                        "the arm {:?} trains segmentation on images of {name}, of which {maskless} have no mask",
                        arm.name
                    ))
                    .help(format!(
                        "set generators.{name}.pseudo_masks = true, or leave [tasks.segmentation] out"
                    )));
                }
                Some(made.rows.len())
            }
            (None, Some(generator)) if generator.mode != Mode::External => {
                Some(VIEW_PHASES * generator.sampling.per_class_images)
            }
            _ => None,
        };
        for &seed in &spec.experiment.seeds {
            let patients = data::split::fraction(&manifest, arm.real_fraction, seed);
            let of_arm = |patient: &String| arm.real_fraction == 1.0 || patients.contains(patient);
            let real = || manifest.of(Split::Train).filter(|row| of_arm(&row.patient));
            if let Some(external) = &external {
                mixing::check_sources(external, real(), &manifest)?;
            }
            let real = real().count();
            mixing::some_image(ratio, real).map_err(|e| e.context(format!("the arm {:?}", arm.name)))?;
            let (Some(made), Some(generator)) = (made, generator) else { continue };
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
