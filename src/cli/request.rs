//! A spec file as a command gets it, with its plan.

use std::path::Path;

use super::SetArgs;
use crate::{
    doctor,
    error::Result,
    execute,
    experiment::{self, ResolvedSpec},
    plan::{self, Plan},
    store::Digests,
};

/// A spec as it is on the device that was asked for.
pub(super) fn load(file: &Path, set: &SetArgs) -> Result<ResolvedSpec> {
    experiment::load(file, &set.sets, doctor::computes_in_bf16(&set.device))
}

/// A spec with its plan and the store's memory of digests.
pub(super) struct Asked {
    pub spec: ResolvedSpec,
    pub plan: Plan,
    pub digests: Digests,
}

pub(super) fn ask(file: &Path, set: &SetArgs, store: &Path) -> Result<Asked> {
    let spec = load(file, set)?;
    let digests = Digests::open(store);
    let outside = execute::outside_digests(&spec, &digests)?;
    Ok(Asked { plan: plan::build(&spec, &outside), spec, digests })
}
