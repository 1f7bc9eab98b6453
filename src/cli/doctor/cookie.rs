//! One cookie, explained from its characters to its user: would Django let this user in, and if not, why?
//!
//! Nothing of it is repeated, not its value, not a key, nothing of the session but who its user is.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::catalogue as kinds;
use super::finding::Finding;
use crate::auth::{AuthBackendKind, AuthSettings, InvalidPrimaryKey, PrimaryKey};
use crate::cli::output::{duration, repr, style, styled};
use crate::codec::{KeyMatch, SessionData};
use crate::session::{BACKEND_KEY, HASH_KEY, USER_ID_KEY};

/// Django takes no shorter key from a client.
const LEAST: usize = 8;

/// What there is of a session, step by step; what a later step needs is there only if the earlier ones
/// went well.
#[derive(Debug, Default)]
pub(super) struct CookieFacts {
    /// Whether the cookie is the session itself.
    pub(super) is_session: bool,
    /// Why it is none.
    pub(super) malformed: Option<&'static str>,
    /// Whether its key is one that Django would draw.
    pub(super) is_drawn: bool,
    pub(super) stored: Stored,
    pub(super) opened: Option<Result<OpenedFacts, String>>,
    pub(super) login: Option<Login>,
    pub(super) user: UserFacts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stored {
    /// The store cannot be asked for sessions.
    #[default]
    NotLooked,
    Missing,
    /// It ends in so many seconds; none if there is no end, or if it is not known.
    There {
        left: Option<i64>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct OpenedFacts {
    pub(super) key: Option<KeyMatch>,
    pub(super) form: Option<&'static str>,
    pub(super) serializer: Option<&'static str>,
    /// Why the site's own settings do not read it.
    pub(super) refused: Option<&'static str>,
}

/// What a session says of its user.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Anonymous,
    /// No user of the model can have such a key.
    NoPrimaryKey,
    User {
        pk: PrimaryKey,
        backend: Backend,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    NotListed,
    /// Whether it lets in who is not active, as far as that is known.
    Listed {
        allows_inactive: Option<bool>,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) enum UserFacts {
    /// And why.
    NotLooked(&'static str),
    #[default]
    Unasked,
    Missing,
    There {
        is_active: bool,
        hash: HashFacts,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashFacts {
    /// Users of the model have no passwords.
    None,
    Fits(KeyMatch),
    /// By a fallback key, which Django accepts since 4.1.8 only.
    FitsTooEarly,
    Wrong,
}

/// The value of a cookie in what was given: the value, the pair of name and value, or a whole header.
pub(super) fn value_of<'a>(given: &'a str, name: &str) -> Result<&'a str, &'static str> {
    let given = given.trim();
    let given = match given.split_once(':') {
        Some((header, rest)) if header.eq_ignore_ascii_case("cookie") => rest.trim(),
        Some((header, rest)) if header.eq_ignore_ascii_case("set-cookie") => rest.trim(),
        _ => given,
    };
    let value = if given.contains('=') {
        let mut pairs = given.split(';').filter_map(|pair| pair.trim().split_once('='));
        // Of several, Django takes the last one.
        let found = pairs.by_ref().filter(|(found, _)| *found == name).last();
        found.ok_or("it holds no cookie of the name that SESSION_COOKIE_NAME says")?.1
    } else {
        given
    };
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let value = bare.unwrap_or(value);
    if value.is_empty() {
        return Err("it is empty");
    }
    if value.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err("it has blanks or line ends inside");
    }
    Ok(value)
}

/// Whether Django takes it for a key at all.
pub(super) fn key_trouble(value: &str) -> Option<&'static str> {
    (value.chars().take(LEAST).count() < LEAST)
        .then_some("it has fewer than 8 characters, and Django takes no such key")
}

/// Whether it is one that Django would draw.
pub(super) fn is_drawn(value: &str) -> bool {
    value.len() == 32
        && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Who has logged in, and the hash that the login left.
pub(super) fn login(data: &SessionData, settings: &AuthSettings) -> (Login, String) {
    let entry = |name| data.get::<Value>(name).ok().flatten();
    let hash = match entry(HASH_KEY) {
        Some(Value::String(hash)) => hash,
        _ => String::new(),
    };
    if !data.contains_key(USER_ID_KEY) || !data.contains_key(BACKEND_KEY) {
        return (Login::Anonymous, hash);
    }
    let value = entry(USER_ID_KEY).unwrap_or(Value::Bool(false));
    let pk = match settings.user_model.primary_key_type.parse_value(&value) {
        Ok(Some(pk)) => pk,
        Ok(None) | Err(InvalidPrimaryKey) => return (Login::NoPrimaryKey, hash),
    };
    let path = entry(BACKEND_KEY);
    let path = path.as_ref().and_then(Value::as_str).unwrap_or_default();
    let backend = match settings.backends.iter().find(|backend| &*backend.path == path) {
        None => Backend::NotListed,
        Some(backend) => Backend::Listed {
            allows_inactive: match backend.kind {
                AuthBackendKind::Model | AuthBackendKind::RemoteUser => Some(false),
                AuthBackendKind::AllowAllUsersModel | AuthBackendKind::AllowAllUsersRemoteUser => {
                    Some(true)
                }
                AuthBackendKind::Unknown => None,
            },
        },
    };
    (Login::User { pk, backend }, hash)
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Good,
    Bad,
    Unknown,
}

/// A cookie, step by step, and what comes of it.
#[derive(Clone, Debug)]
pub(super) struct Explanation {
    steps: Vec<(&'static str, Mark, String)>,
    /// None if it cannot be told.
    lets_in: Option<bool>,
    pub(super) finding: Finding,
}

impl Explanation {
    pub(super) fn of(facts: &CookieFacts) -> Self {
        let mut steps = Steps::default();
        let (lets_in, finding) = judge(facts, &mut steps);
        Self { steps: steps.0, lets_in, finding }
    }

    pub(super) fn to_json(&self) -> Value {
        let steps = self.steps.iter().map(|(name, mark, seen)| {
            let good = match mark {
                Mark::Good => Value::Bool(true),
                Mark::Bad => Value::Bool(false),
                Mark::Unknown => Value::Null,
            };
            json!({"step": name, "good": good, "seen": seen})
        });
        json!({
            "lets_in": self.lets_in,
            "because": self.finding.seen,
            "finding": self.finding.kind.id,
            "steps": steps.collect::<Vec<_>>(),
        })
    }

    pub(super) fn push_to(&self, out: &mut String) {
        let width = self.steps.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        for (name, mark, seen) in &self.steps {
            let mark = match mark {
                Mark::Good => styled(style::TEXT, "✓"),
                Mark::Bad => styled(style::ERROR, "✗"),
                Mark::Unknown => styled(style::TYPE, "?"),
            };
            let name = styled(style::QUIET, format_args!("{name:width$}"));
            let _ = writeln!(out, "  {mark} {name}  {seen}");
        }
        let verdict = match self.lets_in {
            Some(true) => styled(style::TEXT, "Django would let this user in"),
            Some(false) => {
                let because = &self.finding.seen;
                format!(
                    "{}, because {because}",
                    styled(style::ERROR, "Django would not let anybody in")
                )
            }
            None => format!(
                "Whether Django would let this user in cannot be told: {}",
                self.finding.seen
            ),
        };
        let _ = writeln!(out, "  {verdict}");
    }
}

#[derive(Default)]
struct Steps(Vec<(&'static str, Mark, String)>);

impl Steps {
    fn good(&mut self, name: &'static str, seen: impl Into<String>) {
        self.0.push((name, Mark::Good, seen.into()));
    }

    fn unknown(&mut self, name: &'static str, seen: impl Into<String>) {
        self.0.push((name, Mark::Unknown, seen.into()));
    }

    fn bad(&mut self, name: &'static str, seen: impl Into<String>) {
        self.0.push((name, Mark::Bad, seen.into()));
    }
}

fn judge(facts: &CookieFacts, steps: &mut Steps) -> (Option<bool>, Finding) {
    if let Some(why) = facts.malformed {
        steps.bad("syntax", why);
        return (Some(false), kinds::COOKIE_MALFORMED.warning(why));
    }
    steps.good("syntax", "it is the value of a cookie");
    if !facts.is_session {
        steps.good(
            "key",
            if facts.is_drawn {
                "it is a session key as Django draws them"
            } else {
                "Django takes it for a session key, but has not drawn it"
            },
        );
        if let Some(end) = judge_stored(facts.stored, steps) {
            return end;
        }
    }
    match &facts.opened {
        None => {}
        Some(Err(why)) => {
            steps.bad("signature", why);
            let seen = format!("the session cannot be read: {why}");
            return (Some(false), kinds::COOKIE_SESSION_UNREADABLE.warning(seen));
        }
        Some(Ok(opened)) => {
            if let Some(key) = opened.key {
                steps.good("signature", format!("{} signed it", name_of(key)));
            }
            let form: Vec<_> = opened.form.into_iter().chain(opened.serializer).collect();
            if let Some(why) = opened.refused {
                steps.bad("decoding", format!("{}; {why}", form.join(", ")));
                return (Some(false), kinds::COOKIE_SESSION_UNREADABLE.warning(why));
            }
            steps.good("decoding", form.join(", "));
        }
    }
    judge_user(facts, steps)
}

fn judge_stored(stored: Stored, steps: &mut Steps) -> Option<(Option<bool>, Finding)> {
    match stored {
        Stored::NotLooked => {
            let seen = "the store cannot be asked for the session";
            steps.unknown("row", seen);
            Some((None, kinds::STORE_NOT_GIVEN.note(seen)))
        }
        Stored::Missing => {
            let seen = "the store has no such session";
            steps.bad("row", seen);
            Some((Some(false), kinds::COOKIE_SESSION_MISSING.warning(seen)))
        }
        Stored::There { left: Some(left) } if left <= 0 => {
            steps.good("row", "the store has the session");
            let seen = format!("the session expired {} ago", duration(left));
            steps.bad("expiry", &seen);
            Some((Some(false), kinds::COOKIE_SESSION_EXPIRED.warning(seen)))
        }
        Stored::There { left } => {
            steps.good("row", "the store has the session");
            match left {
                Some(left) => steps.good("expiry", format!("it expires in {}", duration(left))),
                None => steps.good("expiry", "it has not expired"),
            }
            None
        }
    }
}

fn judge_user(facts: &CookieFacts, steps: &mut Steps) -> (Option<bool>, Finding) {
    let (pk, backend) = match &facts.login {
        None | Some(Login::Anonymous) => {
            let seen = "nobody has logged in with this session";
            steps.bad("login", seen);
            return (Some(false), kinds::COOKIE_ANONYMOUS.note(seen));
        }
        Some(Login::NoPrimaryKey) => {
            let seen = "the session names its user by what no user can have for a primary key";
            steps.bad("login", seen);
            return (Some(false), kinds::COOKIE_USER_MISSING.warning(seen));
        }
        Some(Login::User { pk, backend }) => (pk, *backend),
    };
    steps.good("login", format!("user {}", repr::plain(pk.as_str())));
    let Backend::Listed { allows_inactive } = backend else {
        let seen = "the backend of the login is not in AUTHENTICATION_BACKENDS";
        steps.bad("backend", seen);
        return (Some(false), kinds::COOKIE_BACKEND.warning(seen));
    };
    steps.good("backend", "it is in AUTHENTICATION_BACKENDS");
    let (is_active, hash) = match &facts.user {
        UserFacts::Unasked => {
            let seen = "there is no address of their database";
            steps.unknown("user", seen);
            return (None, kinds::COOKIE_NOT_TOLD.note(format!("of the users {seen}")));
        }
        UserFacts::NotLooked(why) => {
            steps.unknown("user", *why);
            return (None, kinds::COOKIE_NOT_TOLD.note(*why));
        }
        UserFacts::Missing => {
            let seen = "there is no such user";
            steps.bad("user", seen);
            return (Some(false), kinds::COOKIE_USER_MISSING.warning(seen));
        }
        UserFacts::There { is_active, hash } => (*is_active, *hash),
    };
    let allows_inactive = match (is_active, allows_inactive) {
        (true, _) | (false, Some(true)) => true,
        (false, Some(false)) => false,
        (false, None) => {
            let seen = "the user is not active, and the backend is the site's own";
            steps.unknown("user", seen);
            return (None, kinds::COOKIE_USER_INACTIVE.warning(seen));
        }
    };
    if !allows_inactive {
        let seen = "the user is not active";
        steps.bad("user", seen);
        return (Some(false), kinds::COOKIE_USER_INACTIVE.warning(seen));
    }
    steps.good(
        "user",
        if is_active { "is there and active" } else { "is not active, which the backend allows" },
    );
    match hash {
        HashFacts::None => steps.good("auth hash", "users have no passwords here"),
        HashFacts::Fits(key) => {
            steps.good("auth hash", format!("that of the password, under {}", name_of(key)));
        }
        HashFacts::FitsTooEarly => {
            let seen = "the auth hash is of a fallback key, which this Django does not accept";
            steps.bad("auth hash", seen);
            return (Some(false), kinds::COOKIE_AUTH_HASH.warning(seen));
        }
        HashFacts::Wrong => {
            let seen = "the auth hash is not that of the password, under any of the keys";
            steps.bad("auth hash", seen);
            return (Some(false), kinds::COOKIE_AUTH_HASH.warning(seen));
        }
    }
    let seen = "all that Django looks at is right";
    (Some(true), kinds::COOKIE_GOOD.note(seen))
}

fn name_of(key: KeyMatch) -> String {
    match key {
        KeyMatch::Primary => "SECRET_KEY".to_owned(),
        KeyMatch::Fallback(index) => format!("SECRET_KEY_FALLBACKS[{index}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::PrimaryKeyType;

    #[test]
    fn a_cookie_is_found_in_what_browsers_show() {
        for given in [
            "abcdefgh",
            " abcdefgh\n",
            "sessionid=abcdefgh",
            "\"abcdefgh\"",
            "Cookie: csrftoken=x; sessionid=abcdefgh",
            "Set-Cookie: sessionid=abcdefgh; Path=/; HttpOnly",
            "sessionid=former12; sessionid=abcdefgh",
        ] {
            assert_eq!(value_of(given, "sessionid"), Ok("abcdefgh"), "{given}");
        }
        for given in ["", "sessionid=", "csrftoken=abcdefgh", "abcd efgh"] {
            assert!(value_of(given, "sessionid").is_err(), "{given}");
        }
        assert!(key_trouble("1234567").is_some() && key_trouble("12345678").is_none());
    }

    fn facts(user: UserFacts) -> CookieFacts {
        let pk = PrimaryKeyType::INTEGER.parse("42").unwrap().unwrap();
        CookieFacts {
            is_drawn: true,
            stored: Stored::There { left: Some(60) },
            opened: Some(Ok(OpenedFacts {
                key: Some(KeyMatch::Fallback(0)),
                form: Some("signed"),
                serializer: Some("json"),
                refused: None,
            })),
            login: Some(Login::User {
                pk,
                backend: Backend::Listed { allows_inactive: Some(false) },
            }),
            user,
            ..CookieFacts::default()
        }
    }

    #[test]
    fn each_step_may_be_the_last() {
        let there = |is_active, hash| facts(UserFacts::There { is_active, hash });
        let fits = HashFacts::Fits(KeyMatch::Primary);
        for (facts, id, lets_in) in [
            (there(true, fits), "given-cookie-good", Some(true)),
            (there(true, HashFacts::None), "given-cookie-good", Some(true)),
            (there(false, fits), "given-cookie-user-inactive", Some(false)),
            (there(true, HashFacts::Wrong), "given-cookie-auth-hash", Some(false)),
            (there(true, HashFacts::FitsTooEarly), "given-cookie-auth-hash", Some(false)),
            (facts(UserFacts::Missing), "given-cookie-user-missing", Some(false)),
            (facts(UserFacts::Unasked), "given-cookie-user-not-looked-at", None),
            (
                CookieFacts { stored: Stored::Missing, ..there(true, fits) },
                "given-cookie-session-missing",
                Some(false),
            ),
            (
                CookieFacts { stored: Stored::There { left: Some(-5) }, ..there(true, fits) },
                "given-cookie-session-expired",
                Some(false),
            ),
            (
                CookieFacts { opened: Some(Err("x".to_owned())), ..there(true, fits) },
                "given-cookie-session-unreadable",
                Some(false),
            ),
            (
                CookieFacts { login: Some(Login::Anonymous), ..there(true, fits) },
                "given-cookie-anonymous",
                Some(false),
            ),
            (
                CookieFacts { malformed: Some("x"), ..there(true, fits) },
                "given-cookie-malformed",
                Some(false),
            ),
        ] {
            let explained = Explanation::of(&facts);
            assert_eq!((explained.finding.kind.id, explained.lets_in), (id, lets_in));
        }
    }
}
