//! A spec file as a command gets it, with its plan.

use std::path::Path;

use super::SetArgs;
use crate::{
    doctor,
    error::Result,
    execute,
    experiment::{self, Resolution, ResolvedSpec},
    plan::{self, Plan},
    store::Digests,
};

/// A spec as it is on the device that was asked for.
pub(super) fn load(file: &Path, set: &SetArgs) -> Result<ResolvedSpec> {
    experiment::load(file, &set.sets, doctor::computes_in_bf16(&set.device))
}

/// [`load`] for work to come: whatever is missing, or shows that the work would fail, is reported at once.
pub(super) fn load_checked(file: &Path, set: &SetArgs) -> Result<ResolvedSpec> {
    let bf16 = doctor::computes_in_bf16(&set.device);
    let Resolution { spec, missing } = experiment::load_with_missing(file, &set.sets, bf16)?;
    execute::preflight(&spec, missing).map_err(|e| e.at(file))?;
    Ok(spec)
}

/// A spec with its plan and the store's memory of digests.
pub(super) struct Asked {
    pub spec: ResolvedSpec,
    pub plan: Plan,
    pub digests: Digests,
}

pub(super) fn ask(file: &Path, set: &SetArgs, store: &Path) -> Result<Asked> {
    plan_of(load(file, set)?, store)
}

/// The plan of a spec that was loaded.
pub(super) fn plan_of(spec: ResolvedSpec, store: &Path) -> Result<Asked> {
    let digests = Digests::open(store);
    let outside = execute::outside_digests(&spec, &digests)?;
    Ok(Asked { plan: plan::build(&spec, &outside), spec, digests })
}
