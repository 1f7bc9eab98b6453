//! The file that `manage.py export_session_settings` writes, setting by setting.

use serde_json::{Map, Value};

use super::settings::SettingsError;

/// What the file holds, setting by setting. What is not there is left as it was.
pub(crate) struct Exported<'a>(&'a Map<String, Value>);

impl<'a> Exported<'a> {
    pub(crate) fn new(values: &'a Map<String, Value>) -> Self {
        Self(values)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name)
    }

    pub(crate) fn text(
        &self,
        name: &'static str,
        expected: &'static str,
        place: &mut String,
    ) -> Result<(), SettingsError> {
        match self.get(name) {
            None => {}
            Some(Value::String(text)) if !text.is_empty() => place.clone_from(text),
            Some(_) => return Err(SettingsError::Invalid { name, expected }),
        }
        Ok(())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn domain(
        &self,
        name: &'static str,
        place: &mut Option<String>,
    ) -> Result<(), SettingsError> {
        match self.get(name) {
            None => {}
            Some(Value::Null) => *place = None,
            Some(Value::String(text)) if !text.is_empty() => *place = Some(text.clone()),
            Some(_) => return Err(SettingsError::Invalid { name, expected: "a domain, or None" }),
        }
        Ok(())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn boolean(
        &self,
        name: &'static str,
        place: &mut bool,
    ) -> Result<(), SettingsError> {
        match self.get(name) {
            None => {}
            Some(Value::Bool(value)) => *place = *value,
            Some(_) => return Err(SettingsError::Invalid { name, expected: "True or False" }),
        }
        Ok(())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn texts(
        &self,
        name: &'static str,
        place: &mut Vec<String>,
    ) -> Result<(), SettingsError> {
        let Some(value) = self.get(name) else { return Ok(()) };
        let texts = value.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        });
        *place = texts.ok_or(SettingsError::Invalid { name, expected: "a list of texts" })?;
        Ok(())
    }

    #[cfg(feature = "tower")]
    pub(crate) fn limit(
        &self,
        name: &'static str,
        place: &mut Option<usize>,
    ) -> Result<(), SettingsError> {
        let expected = "a number that is not negative, or None";
        match self.get(name) {
            None => {}
            Some(Value::Null) => *place = None,
            Some(value) => {
                let limit = value.as_u64().and_then(|limit| usize::try_from(limit).ok());
                *place = Some(limit.ok_or(SettingsError::Invalid { name, expected })?);
            }
        }
        Ok(())
    }
}
