//! Which tensors of a checkpoint are a network's weights. Trainers wrap a state_dict in a dict with their own state,
//! and wrappers of networks put a prefix before every name.

use std::collections::HashMap;

use super::{
    faults::{shown, unread},
    objects::{ObjectArena, ObjectId, PickledObject},
    storages::StridedView,
};
use crate::error::{Error, Result};

/// The keys that trainers keep weights under, before any other: Lightning and PyTorch's examples; PyTorch's
/// tutorials; torchvision's and MONAI's scripts; averaged weights.
const WRAPPERS: [&str; 7] =
    ["state_dict", "model_state_dict", "model", "ema", "model_ema", "ema_state_dict", "state_dict_ema"];

/// The prefixes of torch.nn.DataParallel (and AveragedModel) and of torch.compile.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Wrappers around a network; nobody uses more than three.
const MOST_PREFIXES: usize = 8;

/// Dicts within dicts that are looked through.
const DEEPEST_WRAPPER: usize = 4;

/// How many keys a note names.
const NAMED: usize = 5;

/// A network's tensors, in the order in which the file has them.
#[derive(Debug)]
pub(super) struct StateDict {
    pub tensors: Vec<(String, StridedView)>,
    /// What was taken and what passed over, where that is not all of the file.
    pub note: Option<String>,
}

/// The entries of a dict that have a text as key, in the order of their first setting; the last value counts.
fn entries(arena: &ObjectArena, dict: ObjectId) -> Vec<(&str, ObjectId)> {
    let PickledObject::Dict(pairs) = arena.get(dict) else { return Vec::new() };
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut entries: Vec<(&str, ObjectId)> = Vec::new();
    for (key, value) in pairs {
        let Some(key) = arena.text(*key) else { continue };
        match places.get(key).and_then(|&at| entries.get_mut(at)) {
            Some(entry) => entry.1 = *value,
            None => {
                places.insert(key, entries.len());
                entries.push((key, *value));
            }
        }
    }
    entries
}

fn is_tensor(arena: &ObjectArena, id: ObjectId) -> bool {
    matches!(arena.get(id), PickledObject::Tensor(_) | PickledObject::OtherTensor(_))
}

/// Whether a dict holds tensors, itself or under one of the known keys. Answers are kept: a file may name one dict a
/// million times.
fn holds_tensors(
    arena: &ObjectArena,
    dict: ObjectId,
    depth: usize,
    answers: &mut HashMap<ObjectId, bool>,
) -> bool {
    let PickledObject::Dict(pairs) = arena.get(dict) else { return false };
    if let Some(answer) = answers.get(&dict) {
        return *answer;
    }
    answers.insert(dict, false);
    let answer = pairs.iter().any(|(key, value)| match arena.text(*key) {
        Some(_) if is_tensor(arena, *value) => true,
        Some(key) => depth > 0 && WRAPPERS.contains(&key) && holds_tensors(arena, *value, depth - 1, answers),
        None => false,
    });
    answers.insert(dict, answer);
    answer
}

/// A key and, where it is short, its value.
fn described(arena: &ObjectArena, key: &str, value: ObjectId) -> String {
    let key = shown(key);
    match arena.get(value) {
        PickledObject::Bool(value) => format!("`{key}` ({value})"),
        PickledObject::Integer(value) => format!("`{key}` ({value})"),
        PickledObject::Float(value) => format!("`{key}` ({value})"),
        _ => format!("`{key}`"),
    }
}

fn quoted(keys: &[&str]) -> String {
    listed(&keys.iter().map(|key| format!("`{}`", shown(key))).collect::<Vec<_>>())
}

fn listed(words: &[String]) -> String {
    let named: Vec<&str> = words.iter().take(NAMED).map(String::as_str).collect();
    match words.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The weights in the object of a checkpoint: those under `key`, or those that nothing else could be meant by.
///
/// # Errors
/// There are no tensors, or several dicts of them.
pub(super) fn choose(arena: &ObjectArena, root: ObjectId, key: Option<&str>) -> Result<StateDict> {
    if let PickledObject::Tensor(view) = arena.get(root) {
        let tensors = vec![("tensor".to_owned(), (**view).clone())];
        return Ok(StateDict {
            tensors,
            note: Some("one tensor without a name: called `tensor`".to_owned()),
        });
    }
    let mut notes = Vec::new();
    let mut passed_over = Vec::new();
    let mut taken = Vec::new();
    let mut dict = root;
    let mut is_lightning = false;
    for depth in (0..DEEPEST_WRAPPER).rev() {
        let all = entries(arena, dict);
        let named = key.filter(|_| taken.is_empty());
        let Some((wrapper, inner)) = wrapped(arena, &all, named, depth)? else { break };
        is_lightning |=
            wrapper == "state_dict" && all.iter().any(|(key, _)| *key == "pytorch-lightning_version");
        let others = all.iter().filter(|(key, _)| *key != wrapper);
        passed_over.extend(others.map(|(key, value)| described(arena, key, *value)));
        taken.push(wrapper);
        dict = inner;
    }
    if !taken.is_empty() {
        let of = if is_lightning { " of a Lightning checkpoint" } else { "" };
        let path: Vec<String> = taken.iter().map(|key| shown(key)).collect();
        notes.push(format!("took `{}`{of}", path.join(".")));
    }
    let mut tensors: Vec<(&str, &StridedView)> = Vec::new();
    for (name, value) in entries(arena, dict) {
        match arena.get(value) {
            PickledObject::Tensor(view) => tensors.push((name, &**view)),
            PickledObject::OtherTensor(element) => {
                return Err(unread(format!("{} has the type {}", shown(name), element.dtype)));
            }
            _ => passed_over.push(described(arena, name, value)),
        }
    }
    if tensors.is_empty() {
        let what = arena.word(root);
        return Err(Error::input(format!("{what} without named tensors, where a state_dict is needed"))
            .help("save the state_dict: torch.save(model.state_dict(), FILE)"));
    }
    let prefix = common_prefix(&mut tensors, &mut passed_over, is_lightning);
    if !prefix.is_empty() {
        notes.push(format!("removed the prefix `{prefix}`"));
    }
    if !passed_over.is_empty() {
        notes.push(format!("passed over {}", listed(&passed_over)));
    }
    let owned = |(name, view): (&str, &StridedView)| {
        (name.strip_prefix(prefix.as_str()).unwrap_or(name).to_owned(), view.clone())
    };
    let tensors = tensors.into_iter().map(owned).collect();
    Ok(StateDict { tensors, note: (!notes.is_empty()).then(|| notes.join(", ")) })
}

/// The dict to look into next, and its key; None where this dict itself is meant.
fn wrapped<'a>(
    arena: &ObjectArena,
    all: &[(&'a str, ObjectId)],
    key: Option<&str>,
    depth: usize,
) -> Result<Option<(&'a str, ObjectId)>> {
    let mut answers = HashMap::new();
    let mut candidates = all.to_vec();
    candidates.retain(|(_, value)| holds_tensors(arena, *value, depth, &mut answers));
    if let Some(key) = key {
        let found = candidates.iter().find(|(candidate, _)| *candidate == key).copied();
        let keys: Vec<&str> = candidates.iter().map(|(key, _)| *key).collect();
        return found.map(Some).ok_or_else(|| {
            Error::input(format!("the checkpoint has no weights under `{key}`")).help(match keys.is_empty() {
                true => "leave the key out".to_owned(),
                false => format!("it has {}", quoted(&keys)),
            })
        });
    }
    let known: Vec<_> = candidates.iter().copied().filter(|(key, _)| WRAPPERS.contains(key)).collect();
    let is_state_dict = all.iter().any(|(_, value)| is_tensor(arena, *value));
    let meant = match (known.is_empty(), is_state_dict) {
        (false, _) => known,
        (true, true) => return Ok(None),
        (true, false) => candidates,
    };
    match meant.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => {
            let keys: Vec<&str> = several.iter().map(|(key, _)| *key).collect();
            Err(Error::input(format!("several networks' weights: {}", quoted(&keys)))
                .help("choose one: synecho weights convert FILE --key KEY --to OUT.safetensors"))
        }
    }
}

/// The prefix that all names have and no network's own are known to have. Lightning's `model.` is removed once, and of
/// Lightning's checkpoints only: all names of MONAI's U-Net begin with `model.` too.
fn common_prefix(
    tensors: &mut Vec<(&str, &StridedView)>,
    passed_over: &mut Vec<String>,
    is_lightning: bool,
) -> String {
    // torch.optim.swa_utils.AveragedModel counts beside the module.
    let counter = tensors.iter().position(|(name, _)| *name == "n_averaged");
    let is_average = tensors.iter().all(|(name, _)| *name == "n_averaged" || name.starts_with("module."));
    if let Some(counter) = counter.filter(|_| is_average && tensors.len() > 1) {
        passed_over.push(format!("`{}`", tensors.remove(counter).0));
    }
    let mut prefix = String::new();
    let mut lightning = is_lightning.then_some("model.");
    for _ in 0..MOST_PREFIXES {
        let longer = |part: &&str| {
            let whole = format!("{prefix}{part}");
            tensors.iter().all(|(name, _)| name.len() > whole.len() && name.starts_with(&whole))
        };
        if let Some(part) = PREFIXES.iter().copied().find(longer) {
            prefix.push_str(part);
        } else if let Some(part) = lightning.filter(longer) {
            prefix.push_str(part);
            lightning = None;
        } else {
            break;
        }
    }
    prefix
}
