//! A spec file as a command gets it, with its plan.

use std::path::Path;

use crate::{
    error::Result,
    execute,
    experiment::{self, ResolvedSpec},
    plan::{self, Plan},
    store::Digests,
};

/// A spec with its plan and the store's memory of digests.
pub(super) struct Asked {
    pub spec: ResolvedSpec,
    pub plan: Plan,
    pub digests: Digests,
}

pub(super) fn ask(file: &Path, sets: &[String], store: &Path) -> Result<Asked> {
    let spec = experiment::load(file, sets)?;
    let digests = Digests::open(store);
    let outside = execute::outside_digests(&spec, &digests)?;
    Ok(Asked { plan: plan::build(&spec, &outside), spec, digests })
}
