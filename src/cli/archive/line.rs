//! A line of an archive: a session, and how it was stored.

use std::fmt::Write as _;

use crate::cli::error::CliError;
use crate::cli::handle::handle;
use crate::cli::tagged;
use crate::codec::graph::Graph;
use crate::codec::pickle::{self, Limits};
use crate::codec::{SessionData, json};
use crate::session::{DateTime, HASH_KEY};
use crate::store::bulk::{Opened, Place, StoredSession};

/// The first line.
pub(super) const VERSION: &str = "django_session_archive";

/// Entries by which somebody could get in, or find out how.
const SECRETS: [&str; 3] = [HASH_KEY, "_csrftoken", "_password_reset_token"];

/// The first line of an archive, with or without session keys.
pub(super) fn header(with_secrets: bool) -> String {
    format!("{{\"{VERSION}\":1,\"secrets\":{with_secrets}}}\n")
}

/// Appends the line of a session.
pub(super) fn push(
    out: &mut String,
    session: &StoredSession,
    opened: &Opened,
    with_secrets: bool,
) -> Result<(), CliError> {
    let mut data = opened.data.clone();
    if with_secrets {
        out.push_str("{\"session_key\":");
        json::push_string(out, &session.session_key);
    } else {
        for name in SECRETS {
            data.remove(name);
        }
        let _ = write!(out, "{{\"session\":\"{}\"", handle(&session.session_key));
    }
    let _ = write!(out, ",\"expire_date\":\"{}\"", session.expire_date.isoformat());
    if let Some(signed_at) = opened.signed_at {
        let _ = write!(out, ",\"signed_at\":{signed_at}");
    }
    if data.is_python() {
        let pickle = data.to_pickle(pickle::HIGHEST_PROTOCOL);
        let pickle = pickle.map_err(|error| CliError::Encode(error.into()))?;
        let graph = Graph::from_pickle(&pickle, &Limits::default());
        let graph = graph.map_err(|error| CliError::Unreadable(error.to_string()))?;
        let _ = write!(out, ",\"pickle_protocol\":{}", graph.protocol());
        let _ = write!(out, ",\"data\":{}", tagged::write(&graph)?);
    } else {
        // A serializer of the site's own may indent. Within texts, ends of lines are written otherwise.
        let json = data.to_json().map_err(CliError::Encode)?.replace(['\n', '\r'], " ");
        let _ = write!(out, ",\"data\":{json}");
    }
    out.push_str("}\n");
    Ok(())
}

/// A session without a value of any store, and what is in it or why that cannot be told.
pub(super) type Line = (StoredSession, Result<Opened, CliError>);

/// Reads the line of a session.
pub(super) fn read(line: &str) -> Result<Line, CliError> {
    const DAMAGED: CliError = CliError::Archive("a line is no session");
    let members = SessionData::from_json(line).map_err(|_| DAMAGED)?;
    let text = |name: &str| members.get::<String>(name).ok().flatten();
    let session_key = text("session_key").ok_or(CliError::Archive(
        "it was written without session keys; use --include-secrets for one that can be imported",
    ))?;
    let date = text("expire_date").and_then(|text| DateTime::fromisoformat(&text));
    let raw = members.get_raw("data").ok().flatten().ok_or(DAMAGED)?;
    let protocol: Option<u8> = members.get("pickle_protocol").map_err(|_| DAMAGED)?;
    let session = StoredSession {
        session_key,
        value: Vec::new(),
        expire_date: date.ok_or(DAMAGED)?,
        is_dated: true,
        place: Place::Key,
    };
    let signed_at = members.get("signed_at").map_err(|_| DAMAGED)?;
    let opened = open(&raw, protocol).map(|data| {
        let serializer = if protocol.is_some() { "pickle" } else { "json" };
        Opened { data, format: None, key: None, serializer, signed_at }
    });
    Ok((session, opened))
}

/// Makes the session of its data, of a pickle if there is a protocol.
fn open(data: &str, protocol: Option<u8>) -> Result<SessionData, CliError> {
    const NONE: CliError = CliError::NotASession("its data is no session");
    let Some(protocol) = protocol else {
        return SessionData::from_json(data).map_err(|_| NONE);
    };
    let graph = tagged::read(data, protocol.clamp(2, pickle::HIGHEST_PROTOCOL))?;
    SessionData::from_graph(graph).map_err(|_| NONE)
}
