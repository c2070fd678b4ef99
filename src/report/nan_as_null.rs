//! Scores by structure for JSON, which has no NaN.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(values: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let values: Vec<(&str, Option<f64>)> =
        values.iter().map(|(name, value)| (name.as_str(), Some(*value).filter(|v| !v.is_nan()))).collect();
    values.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, f64)>, D::Error> {
    let values: Vec<(String, Option<f64>)> = Deserialize::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
