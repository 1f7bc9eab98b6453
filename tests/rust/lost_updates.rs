//! Many requests change one session at once: how many of the changes are lost.
//!
//! Each worker counts a name of its own up, so that every change that was acknowledged can be told
//! afterwards. `LOST_UPDATES` sets how often each does; `make lost-updates` takes 500, and prints what
//! Django loses beside it.

use std::sync::Arc;

use django_session::session::OnConflict;
use django_session::{Session, SessionKey, SessionSettings, SessionStore};
use serde_json::json;

use crate::differential::Engine;

pub(crate) const WORKERS: u64 = 32;

pub(crate) fn rounds() -> u64 {
    std::env::var("LOST_UPDATES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10)
}

/// How many of the changes are not there in the end.
pub(crate) async fn lost(
    store: Arc<dyn SessionStore>,
    settings: &SessionSettings,
    on_conflict: OnConflict,
) -> u64 {
    let mut settings = settings.clone();
    settings.on_conflict = on_conflict;
    let settings = Arc::new(settings);
    let session = Session::new(Arc::clone(&store), Arc::clone(&settings), None);
    session.save().await.unwrap();
    let session_key = session.session_key().await.unwrap();
    count_up(&store, &settings, &session_key, 0..WORKERS).await;
    let session = Session::new(store, settings, Some(session_key));
    let mut lost = 0;
    for worker in 0..WORKERS {
        let counted: u64 = session.get(&name(worker)).await.unwrap().unwrap_or(0);
        lost += rounds() - counted;
    }
    lost
}

pub(crate) fn name(worker: u64) -> String {
    format!("worker {worker}")
}

/// Lets some of the workers count, all at the same time.
pub(crate) async fn count_up(
    store: &Arc<dyn SessionStore>,
    settings: &Arc<SessionSettings>,
    session_key: &SessionKey,
    workers: std::ops::Range<u64>,
) {
    let tasks: Vec<_> = workers
        .map(|worker| {
            let (store, settings) = (Arc::clone(store), Arc::clone(settings));
            let session_key = session_key.clone();
            tokio::spawn(async move {
                let name = name(worker);
                for _ in 0..rounds() {
                    // A request.
                    let key = Some(session_key.clone());
                    let session = Session::new(Arc::clone(&store), Arc::clone(&settings), key);
                    let count: u64 = session.get(&name).await.unwrap().unwrap_or(0);
                    session.insert(&name, &(count + 1)).await.unwrap();
                    session.save().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Counts with a Django's engine beside the store: all of it Django, or half. Says how many changes are
/// missing of each side.
async fn lost_beside_django(
    store: Arc<dyn SessionStore>,
    settings: &SessionSettings,
    mut django: Engine,
    ours: u64,
) -> [u64; 2] {
    let settings = Arc::new(settings.clone());
    let session = Session::new(Arc::clone(&store), Arc::clone(&settings), None);
    session.save().await.unwrap();
    let session_key = session.session_key().await.unwrap();
    let count = json!({
        "op": "count",
        "key": session_key.as_str(),
        "workers": [ours, WORKERS],
        "rounds": rounds(),
    });
    // Until it is there: otherwise ours are done before theirs begin.
    let mut django = tokio::task::spawn_blocking(move || {
        django.ask(&json!({"op": "exists", "key": "a-key-of-nobody"}));
        django
    })
    .await
    .unwrap();
    let theirs = tokio::task::spawn_blocking(move || django.ask(&count));
    count_up(&store, &settings, &session_key, 0..ours).await;
    assert_eq!(theirs.await.unwrap(), json!({}));
    let session = Session::new(store, settings, Some(session_key));
    let mut lost = [0; 2];
    for worker in 0..WORKERS {
        let counted: u64 = session.get(&name(worker)).await.unwrap().unwrap_or(0);
        lost[usize::from(worker >= ours)] += rounds() - counted;
    }
    lost
}

/// Checks that a store loses nothing, and shows what the last one to win would lose.
pub(crate) async fn check(name: &str, store: Arc<dyn SessionStore>, settings: &SessionSettings) {
    let merged = lost(Arc::clone(&store), settings, OnConflict::Merge).await;
    let overwritten = lost(store, settings, OnConflict::Overwrite).await;
    let all = WORKERS * rounds();
    eprintln!("{name}: of {all} changes {merged} lost with merge, {overwritten} with overwrite");
    assert_eq!(merged, 0, "{name}");
}

/// Shows what a Django loses on its own, and what is lost where half of the workers are threads of one and
/// half are ours.
pub(crate) async fn show_beside_django(
    name: &str,
    store: Arc<dyn SessionStore>,
    settings: &SessionSettings,
    django: impl Fn() -> Option<Engine>,
) {
    for ours in [0, WORKERS / 2] {
        let Some(django) = django() else { return };
        let [of_ours, of_theirs] =
            lost_beside_django(Arc::clone(&store), settings, django, ours).await;
        eprintln!(
            "{name}, {ours} workers of ours and {} of Django, {} changes: lost {of_ours} of ours and \
             {of_theirs} of Django's",
            WORKERS - ours,
            WORKERS * rounds(),
        );
        assert!(of_ours + of_theirs > 0 || rounds() < 10, "{name}: Django has changed");
    }
}
