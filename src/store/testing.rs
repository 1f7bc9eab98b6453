//! The contract that every store keeps, for authors of stores.
//!
//! Each rule is a function that takes a store without any session and the present, and panics if the
//! rule is broken. [`store_contract!`](crate::store_contract) makes a test of each,
//! [`check_contract`] runs them one after the other.
//!
//! The rules are what Django's database engine does since 1.10, where several programs share a table:
//! what is there is not overwritten, what is gone stays gone, what is expired is not seen.

use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use jiff::SignedDuration;

use crate::codec::SessionData;
use crate::session::{DateTime, Saved, SessionKey, SessionRecord, SessionStore, StoreError};

/// Checks every rule, each on a store without any session that `make` makes anew: an `Arc`, a `Box` or
/// a guard that also holds what the store needs. The terms are the present, for a store that keeps
/// sessions as a table does, or [`Terms`].
///
/// # Panics
///
/// If a rule is broken; the message says what should have been.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use django_session::store::{MemoryStore, testing};
/// use django_session::{SecretKey, SessionCodec, SessionSettings};
///
/// let codec = SessionCodec::new(&SecretKey::new("secret")?);
/// let now = SessionSettings::default().datetime(jiff::Timestamp::now());
/// testing::check_contract(async || Arc::new(MemoryStore::new(codec.clone())), now).await;
/// # Ok(())
/// # }
/// ```
pub async fn check_contract<S>(make: impl AsyncFn() -> S, terms: impl Into<Terms>)
where
    S: Deref<Target: SessionStore + Sized>,
{
    let terms = terms.into();
    crate::__store_rules!(check(make)(terms));
}

/// What a store is checked by.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Terms {
    /// The present, in the kind of time that the store is set up for.
    pub now: DateTime,
    /// How exactly an expire date is kept.
    pub precision: SignedDuration,
    /// Whether expired sessions stay, unseen, until they are cleared. Otherwise the server drops them
    /// by a clock of its own.
    pub expired_stay: bool,
    /// Whether keys of other characters than `a-z0-9` can be stored, up to forty of ASCII; spaces need
    /// not.
    pub any_key: bool,
}

impl Terms {
    /// A store on a server that drops what has expired, and keeps expire dates this exactly.
    pub fn dropping(now: DateTime, precision: SignedDuration) -> Self {
        Self { precision, expired_stay: false, ..now.into() }
    }

    /// The same for a store that takes keys of `a-z0-9` alone.
    #[must_use]
    pub fn with_plain_keys(mut self) -> Self {
        self.any_key = false;
        self
    }
}

/// What holds for a table: expire dates to the microsecond, and sessions that stay until they are
/// cleared.
impl From<DateTime> for Terms {
    fn from(now: DateTime) -> Self {
        Self { now, precision: SignedDuration::ZERO, expired_stay: true, any_key: true }
    }
}

/// Makes a `#[tokio::test]` of each rule of [`store::testing`](crate::store::testing).
///
/// The first argument is the name of an async function that makes a store without any session, as for
/// [`check_contract`](crate::store::testing::check_contract), the second an expression for the present
/// or the [`Terms`](crate::store::testing::Terms).
///
/// # Example
///
/// ```
/// mod memory_store {
///     use std::sync::Arc;
///     use django_session::store::MemoryStore;
///     use django_session::{DateTime, SecretKey, SessionCodec};
///
///     async fn empty() -> Arc<MemoryStore> {
///         Arc::new(MemoryStore::new(SessionCodec::new(&SecretKey::new("secret").unwrap())))
///     }
///
///     django_session::store_contract!(empty, DateTime::Aware(jiff::Timestamp::now()));
/// }
/// ```
#[macro_export]
macro_rules! store_contract {
    ($make:path, $terms:expr) => {
        $crate::__store_rules!(test($make)($terms));
    };
}

/// The list of rules, for both of the above.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_rules {
    ($how:ident $make:tt $terms:tt) => {
        $crate::__store_rule! {
            $how $make $terms
            what_is_created_is_loaded
            an_unknown_key_is_no_session
            sessions_do_not_mix
            unicode_and_big_values_round_trip
            expire_dates_are_kept_exactly
            an_expired_row_loads_as_missing
            an_expired_row_keeps_its_key_taken_while_it_stays
            create_never_overwrites
            create_never_overwrites_an_expired_row_that_stays
            concurrent_creates_of_one_key_have_one_winner
            save_replaces_data_and_expire_date
            saving_the_same_twice_is_no_error
            save_revives_an_expired_row_that_stays
            save_never_resurrects
            a_save_that_meets_a_delete_leaves_nothing
            a_revision_is_replaced_once
            a_revision_that_was_deleted_is_not_saved
            of_those_who_replace_one_revision_one_succeeds
            a_revision_is_deleted_alone
            a_key_is_cycled_in_one_step_or_not_at_all
            touch_moves_the_expire_date_alone
            touch_never_resurrects
            delete_removes_one_session
            delete_of_a_missing_key_is_no_error
            clear_expired_is_strict
            weird_keys_find_nothing
            weird_keys_that_fit_are_kept_apart
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_rule {
    (check ($make:ident) ($terms:ident) $($rule:ident)+) => {
        $(
            let store = Box::pin($make()).await;
            Box::pin($rule(&*store, $terms)).await;
            drop(store);
        )+
    };
    (test ($make:path) ($terms:expr) $($rule:ident)+) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::store::testing::$rule(&*$make().await, ($terms).into()).await;
            }
        )+
    };
}

/// What was created is loaded: key, data and expire date.
///
/// # Panics
///
/// If the rule is broken.
pub async fn what_is_created_is_loaded(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let record = record(now, HOUR, "tea");
    create(store, &record).await;
    assert!(exists(store, &record.session_key).await, "a created session exists");
    assert_same(terms, load(store, &record.session_key, now).await, &record);

    let empty = SessionRecord { data: Arc::default(), ..other(&record) };
    create(store, &empty).await;
    assert_same(terms, load(store, &empty.session_key, now).await, &empty);
}

/// A key that was never stored is no session, and no error.
///
/// # Panics
///
/// If the rule is broken.
pub async fn an_unknown_key_is_no_session(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let key = SessionKey::generate();
    assert!(!exists(store, &key).await, "an unknown key does not exist");
    assert!(load(store, &key, now).await.is_none(), "an unknown key loads as missing");
}

/// Each key has its own session.
///
/// # Panics
///
/// If the rule is broken.
pub async fn sessions_do_not_mix(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let (tea, milk) = (record(now, HOUR, "tea"), record(now, HOUR, "milk"));
    create(store, &tea).await;
    create(store, &milk).await;
    let tea = SessionRecord { data: data("more tea"), ..tea };
    save(store, &tea).await;
    assert_same(terms, load(store, &tea.session_key, now).await, &tea);
    assert_same(terms, load(store, &milk.session_key, now).await, &milk);
}

/// Values of any script and size come back, in their order.
///
/// # Panics
///
/// If the rule is broken.
pub async fn unicode_and_big_values_round_trip(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let mut data = SessionData::new();
    insert(
        &mut data,
        "zuletzt",
        "Grüße, 世界, \u{1F600}, \u{0}, \u{7f}, \u{2028}, \"quoted\" \\ '%s'",
    );
    insert(&mut data, "_ключ\u{1F511}", "");
    insert(&mut data, "big", &"Не маленькое значение. ".repeat(20_000));
    let noise: String = (0_u32..200_000)
        .map(|n| {
            char::from(b'!' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap_or(0) % 90)
        })
        .collect();
    insert(&mut data, "noise", &noise);
    let record = SessionRecord { data: Arc::new(data), ..record(now, HOUR, "") };
    create(store, &record).await;
    assert_same(terms, load(store, &record.session_key, now).await, &record);
    save(store, &record).await;
    assert_same(terms, load(store, &record.session_key, now).await, &record);
}

/// An expire date is kept to the microsecond.
///
/// # Panics
///
/// If the rule is broken.
pub async fn expire_dates_are_kept_exactly(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let second = whole_second(now);
    for micros in [0, 1, 10, 120_000, 123_456, 999_999] {
        let expire_date = later(second, HOUR + SignedDuration::from_micros(micros));
        let record = SessionRecord { expire_date, ..record(now, HOUR, "tea") };
        create(store, &record).await;
        assert_same(terms, load(store, &record.session_key, now).await, &record);
        save(store, &record).await;
        assert_same(terms, load(store, &record.session_key, now).await, &record);
        if terms.expired_stay && terms.precision.is_zero() {
            let just_before = later(expire_date, -MICROSECOND);
            assert_same(terms, load(store, &record.session_key, just_before).await, &record);
            assert!(load(store, &record.session_key, expire_date).await.is_none(), "{micros}");
        }
    }
}

/// A session is there as long as its expire date is after the present; at that moment it is not.
///
/// # Panics
///
/// If the rule is broken.
pub async fn an_expired_row_loads_as_missing(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    for (age, is_there) in [
        (-HOUR, false),
        (-MICROSECOND, false),
        (SignedDuration::ZERO, false),
        (MICROSECOND, true),
        // A server that drops entries does so while the other rules are checked.
        (HOUR, true),
        (HOUR * 24 * 365, true),
    ] {
        if age.is_positive() && age <= terms.precision {
            continue;
        }
        let record = record(now, age, "tea");
        create(store, &record).await;
        let loaded = load(store, &record.session_key, now).await;
        assert_eq!(loaded.is_some(), is_there, "a session that expires in {age}");
    }
}

/// An expired session still exists: its key is not free before it is cleared.
///
/// # Panics
///
/// If the rule is broken.
pub async fn an_expired_row_keeps_its_key_taken_while_it_stays(
    store: &dyn SessionStore,
    terms: Terms,
) {
    if !terms.expired_stay {
        return;
    }
    let now = terms.now;
    let expired = record(now, -HOUR, "tea");
    create(store, &expired).await;
    assert!(exists(store, &expired.session_key).await, "an expired session exists");
    clear_expired(store, now).await;
}

/// A key that is taken is an error that says so, and the session under it stays what it was.
///
/// # Panics
///
/// If the rule is broken.
pub async fn create_never_overwrites(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let second =
        SessionRecord { data: data("milk"), expire_date: later(now, HOUR * 2), ..first.clone() };
    for _ in 0..2 {
        let error = store.create(&second).await.expect_err("a taken key is not created");
        assert!(error.is_create(), "a taken key is StoreError::Create, not {error:?}");
    }
    assert_same(terms, load(store, &first.session_key, now).await, &first);
}

/// The same if the session under the key is expired.
///
/// # Panics
///
/// If the rule is broken.
pub async fn create_never_overwrites_an_expired_row_that_stays(
    store: &dyn SessionStore,
    terms: Terms,
) {
    if !terms.expired_stay {
        return;
    }
    let now = terms.now;
    let expired = record(now, -HOUR, "tea");
    create(store, &expired).await;
    let second = SessionRecord { data: data("milk"), ..expired.clone() };
    let error = store.create(&second).await.expect_err("an expired key is not created");
    assert!(error.is_create(), "an expired key is StoreError::Create, not {error:?}");
    assert_same(terms, load(store, &expired.session_key, later(now, -HOUR * 2)).await, &expired);
}

/// Of many who create one key at a time one succeeds, and its data is what is stored.
///
/// # Panics
///
/// If the rule is broken.
pub async fn concurrent_creates_of_one_key_have_one_winner(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    for _ in 0..5 {
        let key = SessionKey::generate();
        let records: Vec<_> = (0..8)
            .map(|index| SessionRecord {
                session_key: key.clone(),
                ..record(now, HOUR, &format!("writer {index}"))
            })
            .collect();
        let results = join(records.iter().map(|record| store.create(record)).collect()).await;
        let mut winners = Vec::new();
        for (result, record) in results.into_iter().zip(&records) {
            match result {
                Ok(_) => winners.push(record),
                Err(error) => {
                    assert!(error.is_create(), "a loser gets StoreError::Create, not {error:?}");
                }
            }
        }
        assert_eq!(winners.len(), 1, "one creates the session");
        assert_same(terms, load(store, &key, now).await, winners[0]);
    }
}

/// Saving replaces data and expire date, and nothing is left of the old.
///
/// # Panics
///
/// If the rule is broken.
pub async fn save_replaces_data_and_expire_date(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let mut data = SessionData::new();
    insert(&mut data, "another", "milk");
    let second =
        SessionRecord { data: Arc::new(data), expire_date: later(now, HOUR * 2), ..first.clone() };
    save(store, &second).await;
    assert_same(terms, load(store, &first.session_key, now).await, &second);
}

/// A session that is there is saved, also if that changes nothing.
///
/// # Panics
///
/// If the rule is broken.
pub async fn saving_the_same_twice_is_no_error(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let record = record(now, HOUR, "tea");
    create(store, &record).await;
    for _ in 0..3 {
        save(store, &record).await;
    }
    assert_same(terms, load(store, &record.session_key, now).await, &record);
}

/// A session that is expired but not cleared can be saved with a later expire date.
///
/// # Panics
///
/// If the rule is broken.
pub async fn save_revives_an_expired_row_that_stays(store: &dyn SessionStore, terms: Terms) {
    if !terms.expired_stay {
        return;
    }
    let now = terms.now;
    let expired = record(now, -HOUR, "tea");
    create(store, &expired).await;
    let revived = SessionRecord { expire_date: later(now, HOUR), ..expired };
    save(store, &revived).await;
    assert_same(terms, load(store, &revived.session_key, now).await, &revived);
}

/// Saving what is not there is an error that says so, and adds nothing.
///
/// # Panics
///
/// If the rule is broken.
pub async fn save_never_resurrects(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let never_there = record(now, HOUR, "tea");
    let deleted = record(now, HOUR, "milk");
    create(store, &deleted).await;
    delete(store, &deleted.session_key).await;
    for record in [never_there, deleted] {
        let error = store.save(&record).await.expect_err("a missing session is not saved");
        assert!(error.is_update(), "a missing session is StoreError::Update, not {error:?}");
        assert!(!exists(store, &record.session_key).await, "nothing is added");
    }
}

/// Whoever comes first: after a delete has ended the session is gone.
///
/// # Panics
///
/// If the rule is broken.
pub async fn a_save_that_meets_a_delete_leaves_nothing(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    for _ in 0..10 {
        let record = record(now, HOUR, "tea");
        create(store, &record).await;
        let save = || Box::pin(async { store.save(&record).await.map(drop) });
        let results = join(vec![save(), store.delete(&record.session_key), save()]).await;
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(()) => {}
                Err(error) => {
                    assert!(
                        index != 1 && error.is_update(),
                        "saving is StoreError::Update at worst"
                    );
                }
            }
        }
        assert!(load(store, &record.session_key, now).await.is_none(), "the session is gone");
    }
}

/// A save with a revision replaces that one and no other: the second of two who have loaded the same
/// finds a conflict. What `create` and `save` answer is the revision that they wrote.
///
/// # Panics
///
/// If the rule is broken.
pub async fn a_revision_is_replaced_once(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let loaded = load_latest(store, &first.session_key, now).await;
    if loaded.revision.is_none() {
        return;
    }
    let milk = SessionRecord { data: data("milk"), ..loaded.clone() };
    let saved = save(store, &milk).await;
    let late = SessionRecord { data: data("sugar"), ..loaded };
    for _ in 0..2 {
        let error = store.save(&late).await.expect_err("another revision is not replaced");
        assert!(error.is_conflict(), "that is StoreError::Conflict, not {error:?}");
        assert_same(terms, load(store, &first.session_key, now).await, &milk);
    }
    let honey = SessionRecord { data: data("honey"), revision: saved.revision, ..milk };
    save(store, &honey).await;
    assert_same(terms, load(store, &first.session_key, now).await, &honey);
    let last = SessionRecord { data: data("lemon"), revision: None, ..honey };
    save(store, &last).await;
    assert_same(terms, load(store, &first.session_key, now).await, &last);

    let created = store.create(&other(&last)).await.expect("a new session is created");
    assert!(created.revision.is_some(), "a created session has a revision");
}

/// A session that was deleted after it was loaded is not saved, and stays deleted; not even if another
/// one was created under its key.
///
/// # Panics
///
/// If the rule is broken.
pub async fn a_revision_that_was_deleted_is_not_saved(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let loaded = load_latest(store, &first.session_key, now).await;
    if loaded.revision.is_none() {
        return;
    }
    delete(store, &first.session_key).await;
    let late = SessionRecord { data: data("milk"), ..loaded };
    let error = store.save(&late).await.expect_err("a deleted session is not saved");
    assert!(error.is_conflict(), "with a revision that is StoreError::Conflict, not {error:?}");
    assert!(load(store, &first.session_key, now).await.is_none(), "it stays deleted");

    let second = SessionRecord { data: data("sugar"), ..first };
    create(store, &second).await;
    let error = store.save(&late).await.expect_err("nor is another one replaced");
    assert!(error.is_conflict(), "that is StoreError::Conflict, not {error:?}");
    assert_same(terms, load(store, &second.session_key, now).await, &second);
}

/// Of many who replace one revision at a time one succeeds, and its data is what is stored.
///
/// # Panics
///
/// If the rule is broken.
pub async fn of_those_who_replace_one_revision_one_succeeds(
    store: &dyn SessionStore,
    terms: Terms,
) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    for round in 0..5 {
        let loaded = load_latest(store, &first.session_key, now).await;
        if loaded.revision.is_none() {
            return;
        }
        let records: Vec<_> = (0..8)
            .map(|index| SessionRecord {
                data: data(&format!("writer {index} of round {round}")),
                ..loaded.clone()
            })
            .collect();
        let results = join(records.iter().map(|record| store.save(record)).collect()).await;
        let mut winners = Vec::new();
        for (result, record) in results.into_iter().zip(&records) {
            match result {
                Ok(_) => winners.push(record),
                Err(error) => {
                    assert!(error.is_conflict(), "a loser gets a conflict, not {error:?}");
                }
            }
        }
        assert_eq!(winners.len(), 1, "one replaces the session");
        assert_same(terms, load(store, &first.session_key, now).await, winners[0]);
    }
}

/// A revision is deleted as long as it is the one that is stored.
///
/// # Panics
///
/// If the rule is broken.
pub async fn a_revision_is_deleted_alone(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let loaded = load_latest(store, &first.session_key, now).await;
    let Some(old) = &loaded.revision else { return };
    let second = SessionRecord { data: data("milk"), ..loaded.clone() };
    let new = save(store, &second).await.revision.expect("a saved session has a revision");
    let error = store.delete_revision(&first.session_key, old).await;
    let error = error.expect_err("another revision is not deleted");
    assert!(error.is_conflict(), "that is StoreError::Conflict, not {error:?}");
    assert_same(terms, load(store, &first.session_key, now).await, &second);
    store.delete_revision(&first.session_key, &new).await.expect("this one is deleted");
    assert!(!exists(store, &first.session_key).await, "it is gone");
    let error = store.delete_revision(&first.session_key, &new).await;
    let error = error.expect_err("what is gone is no revision");
    assert!(error.is_conflict(), "that is StoreError::Conflict, not {error:?}");
}

/// A session is moved to another key together with a change, as long as it is the revision that is
/// stored and the new key is free. A store may not be able to do so in one step, and says so.
///
/// # Panics
///
/// If the rule is broken.
pub async fn a_key_is_cycled_in_one_step_or_not_at_all(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let (first, other) = (record(now, HOUR, "tea"), record(now, HOUR, "coffee"));
    create(store, &first).await;
    create(store, &other).await;
    let loaded = load_latest(store, &first.session_key, now).await;
    let cycled = SessionRecord {
        data: data("milk"),
        expire_date: later(now, HOUR * 2),
        ..record(now, HOUR, "")
    };
    let cycled = SessionRecord { revision: loaded.revision, ..cycled };

    let taken = SessionRecord { session_key: other.session_key.clone(), ..cycled.clone() };
    match store.cycle_key(&first.session_key, &taken).await {
        Err(StoreError::Unsupported { .. }) => return,
        Err(StoreError::Create) => {}
        outcome => panic!("a key that is taken is StoreError::Create, not {outcome:?}"),
    }
    assert_same(terms, load(store, &first.session_key, now).await, &first);
    assert_same(terms, load(store, &other.session_key, now).await, &other);

    let saved = store.cycle_key(&first.session_key, &cycled).await.expect("a free key is taken");
    assert!(!exists(store, &first.session_key).await, "the old key leads nowhere");
    assert_same(terms, load(store, &cycled.session_key, now).await, &cycled);
    let sugar = SessionRecord { data: data("sugar"), revision: saved.revision, ..cycled.clone() };
    save(store, &sugar).await;

    let next = SessionRecord { session_key: SessionKey::generate(), ..cycled.clone() };
    if next.revision.is_some() {
        for gone_or_changed in [&first, &cycled] {
            let error = store.cycle_key(&gone_or_changed.session_key, &next).await;
            let error = error.expect_err("another revision is not moved");
            assert!(error.is_conflict(), "that is StoreError::Conflict, not {error:?}");
        }
    }
    let any = SessionRecord { revision: None, ..next };
    let error = store.cycle_key(&first.session_key, &any).await;
    let error = error.expect_err("what is not there is not moved");
    assert!(matches!(error, StoreError::Update), "that is StoreError::Update, not {error:?}");
    assert!(!exists(store, &any.session_key).await, "nothing was added");
    assert_same(terms, load(store, &sugar.session_key, now).await, &sugar);
    store.cycle_key(&sugar.session_key, &any).await.expect("without a revision, whatever is there");
    assert!(!exists(store, &sugar.session_key).await, "the old key leads nowhere");
    assert_same(terms, load(store, &any.session_key, now).await, &any);
}

/// A touch moves the expire date, and what others have saved meanwhile stays.
///
/// # Panics
///
/// If the rule is broken.
pub async fn touch_moves_the_expire_date_alone(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let first = record(now, HOUR, "tea");
    create(store, &first).await;
    let loaded = load_latest(store, &first.session_key, now).await;
    let milk = SessionRecord { data: data("milk"), ..loaded.clone() };
    save(store, &milk).await;
    for hours in [3, 2] {
        let touched = SessionRecord { expire_date: later(now, HOUR * hours), ..loaded.clone() };
        store.touch(&touched).await.expect("a session that is there is touched");
        let expected = SessionRecord { expire_date: touched.expire_date, ..milk.clone() };
        assert_same(terms, load(store, &first.session_key, now).await, &expected);
    }
    let loaded = load_latest(store, &first.session_key, now).await;
    let touched = SessionRecord { expire_date: later(now, HOUR * 4), ..loaded.clone() };
    let saved = store.touch(&touched).await.expect("a session that is there is touched");
    let sugar = SessionRecord { data: data("sugar"), revision: saved.revision, ..touched };
    save(store, &sugar).await;
    assert_same(terms, load(store, &first.session_key, now).await, &sugar);
}

/// Touching what is not there is an error that says so, and adds nothing.
///
/// # Panics
///
/// If the rule is broken.
pub async fn touch_never_resurrects(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let record = record(now, HOUR, "tea");
    create(store, &record).await;
    delete(store, &record.session_key).await;
    let error = store.touch(&record).await.expect_err("a missing session is not touched");
    assert!(error.is_update(), "a missing session is StoreError::Update, not {error:?}");
    assert!(!exists(store, &record.session_key).await, "nothing is added");
}

/// Deleting removes the session of that key alone.
///
/// # Panics
///
/// If the rule is broken.
pub async fn delete_removes_one_session(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let (gone, kept) = (record(now, HOUR, "tea"), record(now, HOUR, "milk"));
    create(store, &gone).await;
    create(store, &kept).await;
    delete(store, &gone.session_key).await;
    assert!(!exists(store, &gone.session_key).await, "a deleted session does not exist");
    assert!(load(store, &gone.session_key, now).await.is_none(), "nor can it be loaded");
    assert_same(terms, load(store, &kept.session_key, now).await, &kept);
    // The key is free again.
    create(store, &gone).await;
}

/// Deleting what is not there is no error.
///
/// # Panics
///
/// If the rule is broken.
pub async fn delete_of_a_missing_key_is_no_error(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let record = record(now, HOUR, "tea");
    delete(store, &record.session_key).await;
    create(store, &record).await;
    delete(store, &record.session_key).await;
    delete(store, &record.session_key).await;
}

/// Sessions with an expire date before the present are cleared and counted; one that expires at this
/// very moment is not among them, though it cannot be loaded any more. A store whose entries expire by
/// themselves may answer [`StoreError::Unsupported`].
///
/// # Panics
///
/// If the rule is broken.
pub async fn clear_expired_is_strict(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let expired = [record(now, -HOUR, "a"), record(now, -MICROSECOND, "b")];
    let kept = [
        record(now, SignedDuration::ZERO, "c"),
        record(now, MICROSECOND, "d"),
        record(now, HOUR, "e"),
    ];
    for record in expired.iter().chain(&kept) {
        create(store, record).await;
    }
    let Some(cleared) = clear_expired(store, now).await else { return };
    if !terms.expired_stay {
        // Some or all have gone by themselves.
        return;
    }
    assert_eq!(cleared, 2, "the number of cleared sessions");
    for record in &expired {
        assert!(!exists(store, &record.session_key).await, "an expired session is cleared");
    }
    for record in &kept {
        assert!(exists(store, &record.session_key).await, "another is kept");
    }
    assert_eq!(clear_expired(store, now).await, Some(0), "a second time there is nothing to clear");
}

/// A client may send any key of eight characters. Whatever it is, it is no session, and no error.
///
/// # Panics
///
/// If the rule is broken.
pub async fn weird_keys_find_nothing(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let there = record(now, HOUR, "tea");
    create(store, &there).await;
    let long = "x".repeat(300);
    let longer = format!("{}longer than a row's key", there.session_key.as_str());
    for key in [
        "12345678",
        "' OR 1=1 --",
        "\"; DROP TABLE django_session; --",
        "%%%%%%%%%%",
        "________________________________",
        "../../../etc/passwd",
        "\\\\\\\\\\\\\\\\",
        "with spaces and\ttabs\r\n",
        "nul\0nul\0nul",
        "ключ-сеанса",
        "\u{1F36A}\u{1F36A}\u{1F36A}\u{1F36A}\u{1F36A}\u{1F36A}\u{1F36A}\u{1F36A}",
        "\u{FFFD}\u{FFFF}\u{7F}\u{1}\u{2}\u{3}\u{4}\u{5}",
        &long,
        &longer,
    ] {
        let key = SessionKey::parse(key).expect("it has eight characters");
        assert!(!exists(store, &key).await, "{} does not exist", key.as_str().escape_debug());
        assert!(load(store, &key, now).await.is_none(), "{}", key.as_str().escape_debug());
        let record = SessionRecord { session_key: key.clone(), ..there.clone() };
        let error = store.save(&record).await.expect_err("a missing session is not saved");
        assert!(error.is_update(), "a missing session is StoreError::Update, not {error:?}");
        delete(store, &key).await;
    }
    assert_same(terms, load(store, &there.session_key, now).await, &there);
}

/// A key with characters that mean something in a query or a pattern is a key like any other, or one
/// that no session can have. A store may refuse to create one with a space in any case.
///
/// # Panics
///
/// If the rule is broken.
pub async fn weird_keys_that_fit_are_kept_apart(store: &dyn SessionStore, terms: Terms) {
    let now = terms.now;
    let keys = ["tea'tea\"tea`", "percent%_%_%", "back\\slash\\0", "-- comment --", "dollar$1?1:1"];
    let keys = keys.map(|key| SessionKey::parse(key).expect("it has eight characters"));
    let records = keys.map(|key| SessionRecord {
        data: data(key.as_str()),
        session_key: key,
        ..record(now, HOUR, "")
    });
    if !terms.any_key {
        for record in &records {
            store.create(record).await.expect_err("such a key is not created");
            assert!(!exists(store, &record.session_key).await, "nor is it there");
        }
        return;
    }
    let mut stored = Vec::new();
    for record in &records {
        match store.create(record).await {
            Ok(_) => stored.push(record),
            Err(StoreError::Backend(_)) if record.session_key.as_str().contains(' ') => {}
            Err(error) => panic!("a new session is created: {error:?}"),
        }
    }
    for record in stored {
        save(store, record).await;
        assert_same(terms, load(store, &record.session_key, now).await, record);
    }
    delete(store, &records[1].session_key).await;
    assert!(load(store, &records[1].session_key, now).await.is_none(), "it is deleted");
    assert_same(terms, load(store, &records[2].session_key, now).await, &records[2]);
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MICROSECOND: SignedDuration = SignedDuration::from_micros(1);

fn record(now: DateTime, age: SignedDuration, item: &str) -> SessionRecord {
    SessionRecord {
        session_key: SessionKey::generate(),
        data: data(item),
        expire_date: later(now, age),
        revision: None,
    }
}

/// The same under another key.
fn other(record: &SessionRecord) -> SessionRecord {
    SessionRecord { session_key: SessionKey::generate(), ..record.clone() }
}

fn data(item: &str) -> Arc<SessionData> {
    let mut data = SessionData::new();
    insert(&mut data, "item", item);
    Arc::new(data)
}

fn insert(data: &mut SessionData, name: &str, value: &str) {
    data.insert(name, value).expect("text has a form that Django reads");
}

/// `time` and a duration later, cut to what Python's clock shows.
fn later(time: DateTime, duration: SignedDuration) -> DateTime {
    let cut = SignedDuration::from_nanos(i64::from(time.to_civil().subsec_nanosecond() % 1000));
    time.checked_add(duration - cut).expect("the present is not the end of time")
}

fn whole_second(time: DateTime) -> DateTime {
    let cut = SignedDuration::from_nanos(i64::from(time.to_civil().subsec_nanosecond()));
    time.checked_add(-cut).expect("the present is not the end of time")
}

async fn create(store: &dyn SessionStore, record: &SessionRecord) -> Saved {
    store.create(record).await.expect("a new session is created")
}

async fn save(store: &dyn SessionStore, record: &SessionRecord) -> Saved {
    store.save(record).await.expect("a session that is there is saved")
}

async fn load(
    store: &dyn SessionStore,
    session_key: &SessionKey,
    now: DateTime,
) -> Option<SessionRecord> {
    store.load(session_key, now).await.expect("loading is no error")
}

/// As who wants to save it.
async fn load_latest(
    store: &dyn SessionStore,
    session_key: &SessionKey,
    now: DateTime,
) -> SessionRecord {
    let loaded = store.load_latest(session_key, now).await.expect("loading is no error");
    loaded.expect("it is there")
}

async fn exists(store: &dyn SessionStore, session_key: &SessionKey) -> bool {
    store.exists(session_key).await.expect("asking is no error")
}

async fn delete(store: &dyn SessionStore, session_key: &SessionKey) {
    store.delete(session_key).await.expect("deleting is no error");
}

async fn clear_expired(store: &dyn SessionStore, now: DateTime) -> Option<u64> {
    match store.clear_expired(now).await {
        Ok(cleared) => Some(cleared),
        Err(StoreError::Unsupported { .. }) => None,
        Err(error) => panic!("clearing is supported or not, but does not fail: {error:?}"),
    }
}

fn assert_same(terms: Terms, loaded: Option<SessionRecord>, record: &SessionRecord) {
    let loaded = loaded.expect("the session is there");
    assert!(loaded.session_key == record.session_key, "the key is the one that was asked for");
    assert!(
        loaded.data.to_json().ok() == record.data.to_json().ok(),
        "the data is what was stored"
    );
    let off = loaded.expire_date.since(record.expire_date).expect("both are of one kind");
    assert!(
        off.abs() <= terms.precision,
        "the expire date is what was stored, not {off} beside it"
    );
}

/// Runs futures at the same time, as far as the store lets them.
async fn join<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
    poll_fn(move |context| {
        for (future, result) in &mut futures {
            if let Some(running) = future
                && let Poll::Ready(value) = running.as_mut().poll(context)
            {
                *result = Some(value);
                *future = None;
            }
        }
        if futures.iter().any(|(future, _)| future.is_some()) {
            return Poll::Pending;
        }
        Poll::Ready(futures.iter_mut().filter_map(|(_, result)| result.take()).collect())
    })
    .await
}
