//! Two requests change one session: what becomes of it.
//!
//! Django lets the last one win, with everything it has: what the other one did is lost. Here each keeps
//! what it did. The rule is per top-level name: what this side has set or removed since it loaded the
//! session wins, everything else stays as it is stored by now. These are pure functions of what was
//! loaded, what is wanted and what is stored; [`Session`](super::Session) reads and writes around them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::codec::{Name, SessionData};

/// What happens when somebody else has saved the session since it was loaded
/// (`SESSION_ON_CONFLICT`).
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// The save fails with [`StoreError::Conflict`](super::StoreError::Conflict).
    Error,
    /// Both keep what they changed; of a name that both have changed, the value of the later save.
    #[default]
    Merge,
    /// As `Merge`, and of a name that both have changed, what the function says.
    MergeWith(Arc<dyn Fn(&Conflict<'_>) -> Resolution + Send + Sync>),
    /// The later save replaces everything, as in Django.
    Overwrite,
}

impl OnConflict {
    /// Asks a function about each name that both sides have changed, also if they came to the same
    /// value: of two requests that count, each has added its own.
    ///
    /// # Example
    ///
    /// ```
    /// use django_session::session::{OnConflict, Resolution};
    ///
    /// // Counters add up, everything else is the later save's.
    /// let on_conflict = OnConflict::merge_with(|conflict| {
    ///     if !conflict.name.starts_with("count_") {
    ///         return Resolution::Mine;
    ///     }
    ///     let number = |value: &Option<_>| -> i64 {
    ///         value.as_deref().and_then(|json: &str| json.parse().ok()).unwrap_or(0)
    ///     };
    ///     let added = number(&conflict.mine) - number(&conflict.loaded);
    ///     Resolution::Json((number(&conflict.stored) + added).to_string())
    /// });
    /// # assert!(matches!(on_conflict, OnConflict::MergeWith(_)));
    /// ```
    pub fn merge_with(
        resolve: impl Fn(&Conflict<'_>) -> Resolution + Send + Sync + 'static,
    ) -> Self {
        Self::MergeWith(Arc::new(resolve))
    }
}

impl fmt::Debug for OnConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "Error",
            Self::Merge => "Merge",
            Self::MergeWith(_) => "MergeWith(..)",
            Self::Overwrite => "Overwrite",
        })
    }
}

/// A name that two requests have changed; values as JSON text, `None` where there
/// is none or it has no form in JSON.
#[derive(Clone, Copy)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "values of a session are not shown")]
pub struct Conflict<'a> {
    /// The name.
    pub name: &'a str,
    /// What this side loaded.
    pub loaded: &'a Option<Cow<'a, str>>,
    /// What this side wants.
    pub mine: &'a Option<Cow<'a, str>>,
    /// What is stored by now.
    pub stored: &'a Option<Cow<'a, str>>,
}

/// What becomes of a name that two requests have changed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "values of a session are not shown")]
pub enum Resolution {
    /// This JSON text. One that Python would not read counts as [`Resolution::Mine`].
    Json(String),
    /// What this side wants.
    Mine,
    /// What is stored by now.
    Stored,
}

/// What one side knows of its changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Names that were set or removed, to whatever value.
    touched: HashSet<Box<str>>,
}

impl Changes {
    pub(crate) fn touch(&mut self, name: &str) {
        if !self.touched.contains(name) {
            self.touched.insert(name.into());
        }
    }

    fn has(&self, name: Name<'_>) -> bool {
        !self.touched.is_empty() && name.to_str().is_some_and(|name| self.touched.contains(&*name))
    }
}

/// `stored` with what was changed between `loaded` and `mine`.
///
/// Names that were touched are changed even if the value is the one that was loaded; values in which
/// something was changed deep inside are found by comparing.
pub(crate) fn merge(
    loaded: &SessionData,
    mine: &SessionData,
    changes: &Changes,
    stored: &SessionData,
    on_conflict: &OnConflict,
) -> SessionData {
    let differs = |name: Name<'_>| changes.has(name) || !mine.same_value(loaded, name);
    let resolve = |name: Name<'_>| {
        let OnConflict::MergeWith(resolve) = on_conflict else { return Resolution::Mine };
        // Of two that count, both may have come to the same number; what both have removed is gone.
        let is_gone = !stored.contains(name) && !mine.contains(name);
        if stored.same_value(loaded, name) || is_gone {
            return Resolution::Mine;
        }
        // A name that is no Unicode can only have been changed by Python.
        let Some(name) = name.to_str() else { return Resolution::Mine };
        let value = |data: &SessionData| {
            data.get_raw(&name).ok().flatten().map(|value| Cow::Owned(value.into_owned()))
        };
        let (loaded, mine, stored) = (value(loaded), value(mine), value(stored));
        resolve(&Conflict { name: &name, loaded: &loaded, mine: &mine, stored: &stored })
    };
    let mut merged = stored.clone();
    let mut said = Vec::new();
    let mut decide = |name: Name<'_>| match resolve(name) {
        Resolution::Mine => true,
        Resolution::Stored => false,
        Resolution::Json(json) => {
            said.extend(name.to_str().map(|name| (name.into_owned(), json)));
            true
        }
    };
    let set = mine.select(|name| differs(name) && decide(name));
    let removed = loaded.select(|name| !mine.contains(name) && decide(name));
    merged.retain(|name| !removed.contains(name));
    // A name that was added and removed again was never loaded, and is in neither.
    let is_gone =
        |name: Name<'_>| changes.has(name) && !mine.contains(name) && !loaded.contains(name);
    let gone = stored.select(|name| is_gone(name) && decide(name));
    merged.retain(|name| !gone.contains(name));
    merged.update(&set);
    for (name, json) in said {
        // Text that is no JSON leaves what this side wants.
        let _ = merged.insert_raw(&name, &json);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> SessionData {
        SessionData::from_json(json).unwrap()
    }

    fn changes(names: &[&str]) -> Changes {
        let mut changes = Changes::default();
        for name in names {
            changes.touch(name);
        }
        changes
    }

    fn merged(loaded: &str, mine: &str, touched: &[&str], stored: &str) -> String {
        let found =
            merge(&data(loaded), &data(mine), &changes(touched), &data(stored), &OnConflict::Merge);
        found.to_json().unwrap()
    }

    #[test]
    fn both_sides_keep_what_they_changed() {
        for (loaded, mine, touched, stored, expected) in [
            // Different names.
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, &["b"][..], r#"{"a":3}"#, r#"{"a":3,"b":2}"#),
            // The same name: the later save.
            (r#"{"a":1}"#, r#"{"a":2}"#, &["a"], r#"{"a":3}"#, r#"{"a":2}"#),
            // Set to what it was: still set.
            (r#"{"a":1}"#, r#"{"a":1}"#, &["a"], r#"{"a":3}"#, r#"{"a":1}"#),
            // Removed here, removed there.
            (r#"{"a":1,"b":2}"#, r#"{"b":2}"#, &["a"], r#"{"a":1,"c":3}"#, r#"{"c":3}"#),
            // Removed here, changed there: what I removed wins.
            (r#"{"a":1}"#, "{}", &["a"], r#"{"a":3}"#, "{}"),
            // Changed here, removed there.
            (r#"{"a":1}"#, r#"{"a":2}"#, &["a"], "{}", r#"{"a":2}"#),
            // Changed deep inside, which nobody noted.
            (r#"{"a":[1]}"#, r#"{"a":[1,2]}"#, &[], r#"{"a":[1],"b":1}"#, r#"{"a":[1,2],"b":1}"#),
            // Added and removed again here, added there.
            ("{}", "{}", &["a"], r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
            // Nothing was done here.
            (r#"{"a":1}"#, r#"{"a":1}"#, &[], r#"{"b":[9]}"#, r#"{"b":[9]}"#),
            // Names that look different in JSON and are one.
            (
                r#"{"\u00e9":1}"#,
                r#"{"\u00e9":2}"#,
                &["é"],
                r#"{"é":3,"b":1}"#,
                "{\"\\u00e9\":2,\"b\":1}",
            ),
        ] {
            assert_eq!(merged(loaded, mine, touched, stored), expected, "{loaded} {mine} {stored}");
        }
    }

    #[cfg(feature = "cache")]
    #[test]
    fn a_copy_in_a_cache_and_a_row_are_compared_under_names_that_are_no_unicode_too() {
        let loaded = data(r#"{"\ud800":1,"a":1}"#);
        let loaded = SessionData::clone(&loaded.as_python());
        let mine = data(r#"{"\ud800":2,"a":1}"#);
        let stored = data(r#"{"\ud800":1,"a":3}"#);
        let found = merge(&loaded, &mine, &Changes::default(), &stored, &OnConflict::Merge);
        assert_eq!(found.to_json().unwrap(), r#"{"\ud800":2,"a":3}"#);
    }

    #[test]
    fn a_merge_with_nothing_in_between_is_what_was_wanted() {
        let (loaded, mine) = (r#"{"a":1,"b":[1,{"c":2}]}"#, r#"{"b":[1,{"c":3}],"d":null}"#);
        assert_eq!(merged(loaded, mine, &[], loaded), mine);
    }

    #[test]
    fn a_function_decides_about_what_was_added_there_and_removed_again_here() {
        let on_conflict = OnConflict::merge_with(|conflict| {
            assert!(conflict.loaded.is_none() && conflict.mine.is_none());
            match conflict.name {
                "keep" => Resolution::Stored,
                "new" => Resolution::Json("2".to_owned()),
                _ => Resolution::Mine,
            }
        });
        let stored = data(r#"{"keep":1,"new":1,"gone":1,"other":1}"#);
        let touched = changes(&["keep", "new", "gone"]);
        let nothing = data("{}");
        let found = merge(&nothing, &nothing, &touched, &stored, &on_conflict);
        assert_eq!(found, data(r#"{"keep":1,"new":2,"other":1}"#));
    }

    #[test]
    fn a_function_decides_what_both_have_changed() {
        let on_conflict = OnConflict::merge_with(|conflict| {
            assert!(!["mine", "theirs", "none"].contains(&conflict.name), "{}", conflict.name);
            match conflict.name {
                "sum" => Resolution::Json("6".to_owned()),
                "same" => Resolution::Json("3".to_owned()),
                "stored" => Resolution::Stored,
                "gone" => {
                    assert!(conflict.mine.is_none());
                    Resolution::Stored
                }
                "broken" => Resolution::Json("{".to_owned()),
                _ => Resolution::Mine,
            }
        });
        let loaded = data(
            r#"{"mine":1,"theirs":1,"same":1,"sum":1,"stored":1,"gone":1,"none":1,"broken":1}"#,
        );
        let mine = data(r#"{"mine":2,"theirs":1,"same":2,"sum":2,"stored":2,"broken":2}"#);
        let stored =
            data(r#"{"mine":1,"theirs":3,"same":2,"sum":5,"stored":3,"gone":3,"broken":3}"#);
        let found = merge(&loaded, &mine, &Changes::default(), &stored, &on_conflict);
        let expected = r#"{"mine":2,"theirs":3,"same":3,"sum":6,"stored":3,"gone":3,"broken":2}"#;
        assert_eq!(found, data(expected));
    }
}
