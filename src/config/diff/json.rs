//! Changes as JSON, for `rlb diff --format json`; docs/configuration.md describes it. Pure.

use super::Changes;
use serde_json::{Value, json};

impl Changes {
    /// One object.
    pub fn to_json(&self) -> Value {
        let list: Vec<_> = self
            .list
            .iter()
            .map(|change| {
                let keys: Vec<_> = change
                    .keys
                    .iter()
                    .map(|one| json!({ "key": one.key, "from": one.from, "to": one.to }))
                    .collect();
                json!({
                    "action": change.action.name(),
                    "kind": change.kind,
                    "name": change.name,
                    "keys": keys,
                    "effect": change.effect,
                })
            })
            .collect();
        json!({
            "summary": self.summary(),
            "needs_restart": self.restarts().next().is_some(),
            "changes": list,
        })
    }
}
