//! Encoded passwords against what Django 4.2, 5.2 and 6.1 said of them, and an installed Django against
//! ours.

use std::collections::BTreeMap;

use django_session::auth::hashers::{
    Argon2, Bcrypt, CustomHasher, HasherError, PasswordCheck, PasswordHasher, PasswordHashers,
    Pbkdf2, Salted, Scrypt, is_password_usable,
};
use serde_json::{Value, json};

use crate::differential::{Engine, Random};
use crate::peer::has_module;
use crate::vectors::{self, text};

/// The hashers of a record. Those of one run have the same text.
fn hashers(record: &Value, known: &mut BTreeMap<String, PasswordHashers>) -> PasswordHashers {
    let settings = record["settings"].to_string();
    let read = || PasswordHashers::from_json(&settings).unwrap();
    known.entry(settings.clone()).or_insert_with(read).clone()
}

/// A password, which may be one letter again and again.
fn password(record: &Value) -> String {
    match &record["password"] {
        Value::String(text) => text.clone(),
        repeat => {
            let count = repeat["count"].as_u64().unwrap().try_into().unwrap();
            repeat["char"].as_str().unwrap().repeat(count)
        }
    }
}

/// Whether we raise an error where Django only says no; or what is wrong about our answers.
fn compare(record: &Value, hashers: &PasswordHashers) -> Result<bool, String> {
    let (password, encoded) = (password(record), text(record, "encoded"));
    let mut is_stricter = false;
    if is_password_usable(encoded) != record["usable"] {
        return Err("usable".to_owned());
    }

    let identified = hashers.identify_hasher(encoded);
    let algorithm = identified.as_ref().ok().and_then(|hasher| hasher.algorithm());
    if json!(algorithm) != record["identified"] {
        return Err(format!("identified {algorithm:?}"));
    }

    let must_update = hashers.must_update(encoded);
    match (&must_update, &record["must_update"]["result"]) {
        (Ok(ours), Value::Bool(theirs)) if ours == theirs => {}
        (Err(HasherError::UnknownAlgorithm), Value::Null) if algorithm.is_none() => {}
        (Err(HasherError::Malformed { .. }), Value::Null) if algorithm.is_some() => {}
        (Err(HasherError::Malformed { .. }), Value::Bool(_)) => is_stricter = true,
        (Err(HasherError::LimitExceeded { parameter: "length", .. }), Value::Bool(_)) => {}
        _ => return Err(format!("{must_update:?}")),
    }

    // What Django takes long for, and does.
    if record["check"].is_null() && record["refused"] == false {
        return Ok(is_stricter);
    }
    let check = hashers.check_password(&password, encoded);
    let theirs = &record["check"]["result"];
    match &check {
        Ok(PasswordCheck::Match { must_update })
            if *theirs == true && record["renewed"] == *must_update => {}
        Ok(PasswordCheck::NoMatch | PasswordCheck::UnknownAlgorithm | PasswordCheck::Unusable)
            if *theirs == false => {}
        Err(HasherError::LimitExceeded { parameter, .. })
            if theirs.is_null() || (*theirs == false && *parameter == "length") => {}
        Err(HasherError::Malformed { .. } | HasherError::PasswordTooLong { .. })
            if theirs.is_null() && record["refused"] == false => {}
        Err(HasherError::Malformed { .. }) if *theirs == false => is_stricter = true,
        _ => return Err(format!("{check:?}")),
    }
    let is_unusable = matches!(check, Ok(PasswordCheck::Unusable));
    assert_eq!(is_unusable, record["usable"] == false, "{}", record["id"]);
    Ok(is_stricter)
}

#[test]
fn every_answer_is_django_s() {
    let records = vectors::read_file("hashers.jsonl.zst");
    let mut known = BTreeMap::new();
    let (mut wrong, mut stricter) = (Vec::new(), Vec::new());
    for record in &records {
        match compare(record, &hashers(record, &mut known)) {
            Ok(false) => {}
            Ok(true) => stricter.push(text(record, "encoded")),
            Err(why) => wrong.push(format!("{why}: {record}")),
        }
    }
    for line in &wrong {
        eprintln!("{line}\n");
    }
    assert!(wrong.is_empty(), "{} of {} records", wrong.len(), records.len());
    assert!(records.len() > 15_000);
    // Padding in the salt of an Argon2 password.
    assert_eq!(stricter.len(), 9);
    assert!(stricter.iter().all(|encoded| encoded.contains("=$")), "{stricter:?}");
}

/// Hashers with little work, which an installed Django is given too.
fn fast() -> (PasswordHashers, Value) {
    let mut argon2 = Argon2::default();
    (argon2.time_cost, argon2.memory_cost, argon2.parallelism) = (1, 64, 3);
    let mut bcrypt = Bcrypt::default();
    bcrypt.rounds = 4;
    let mut scrypt = Scrypt::new(2);
    scrypt.work_factor = 64;
    let hashers = PasswordHashers::new([
        PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(300)),
        PasswordHasher::Pbkdf2Sha1(Pbkdf2::new(200)),
        PasswordHasher::Argon2(argon2),
        PasswordHasher::BcryptSha256(bcrypt),
        PasswordHasher::Bcrypt(bcrypt),
        PasswordHasher::Scrypt(scrypt),
        PasswordHasher::Md5(Salted::default()),
    ]);
    let classes = json!({
        "PBKDF2PasswordHasher": {"iterations": 300},
        "PBKDF2SHA1PasswordHasher": {"iterations": 200},
        "Argon2PasswordHasher": {"time_cost": 1, "memory_cost": 64, "parallelism": 3},
        "BCryptSHA256PasswordHasher": {"rounds": 4},
        "BCryptPasswordHasher": {"rounds": 4},
        "ScryptPasswordHasher": {"work_factor": 64, "parallelism": 2},
        "MD5PasswordHasher": {},
    });
    (hashers.unwrap(), classes)
}

fn random_password(random: &mut Random) -> String {
    let letters = ['a', 'Z', '7', ' ', '$', '!', '\0', '\n', 'é', '\u{301}', '世', '\u{1F511}'];
    let length = [0, 1, 8, 20, 72, 200][random.below(6)];
    (0..length).map(|_| letters[random.below(letters.len())]).collect()
}

#[test]
fn an_installed_django_and_we_accept_each_other_s_passwords() {
    let (hashers, classes) = fast();
    let Some(mut django) = Engine::run(&["passwords", &classes.to_string()]) else { return };
    let mut missing = vec!["argon2", "bcrypt"];
    missing.retain(|name| !has_module(name));
    if !missing.is_empty() {
        let message = format!("NOT TESTED: Django has no library for {missing:?}");
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
    }
    let mut random = Random::new();
    let mut compared = 0;
    for round in 0..40 {
        let (password, other) = (random_password(&mut random), random_password(&mut random));
        for (index, hasher) in hashers.hashers().iter().enumerate() {
            let algorithm = hasher.algorithm().unwrap();
            if algorithm.starts_with("bcrypt") && round % 4 != 0 {
                continue;
            }
            if missing.iter().any(|name| algorithm.starts_with(name)) {
                continue;
            }
            let ours = hashers.make_password_with(algorithm, &password);
            let theirs = django.ask(&json!({"password": password, "algorithm": algorithm}));
            let Ok(ours) = ours else {
                assert_eq!(ours, Err(HasherError::PasswordTooLong { limit: 72 }), "{algorithm}");
                assert!(password.len() > 72);
                // bcrypt before 5.0 cuts it off.
                assert!(theirs["raised"] == "ValueError" || theirs["encoded"].is_string());
                continue;
            };
            let theirs = theirs["encoded"].as_str().unwrap().to_owned();
            // Apart from salt and hash, and their lengths, they are one text.
            assert_eq!(ours.len(), theirs.len(), "{ours} {theirs}");
            assert_eq!(ours.matches('$').count(), theirs.matches('$').count(), "{ours} {theirs}");
            for encoded in [&ours, &theirs] {
                let said = django.ask(&json!({"password": password, "encoded": encoded}));
                assert_eq!(said, json!({"check": true, "renewed": index > 0}), "{encoded}");
                let check = hashers.check_password(&password, encoded);
                assert_eq!(check, Ok(PasswordCheck::Match { must_update: index > 0 }), "{encoded}");
                if other == password || other.len() > 72 {
                    continue;
                }
                let said = django.ask(&json!({"password": other, "encoded": encoded}));
                let check = hashers.check_password(&other, encoded).unwrap();
                // Of NUL and nothing bcrypt makes the same: ask Django about each.
                assert_eq!(said["check"], json!(check.is_match()), "{encoded}");
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "{compared}");
    let unusable = hashers.make_password(None).unwrap();
    let said = django.ask(&json!({"password": "", "encoded": unusable}));
    assert_eq!(said["check"], false);
}

#[test]
fn new_salts_and_unusable_passwords_are_django_s_and_never_the_same() {
    let (hashers, _) = fast();
    let unusable = hashers.make_password(None).unwrap();
    assert!(unusable.starts_with('!') && !is_password_usable(&unusable));
    assert_eq!(unusable.len(), 41);
    assert!(unusable[1..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_ne!(unusable, hashers.make_password(None).unwrap());
    assert_eq!(hashers.check_password("", &unusable), Ok(PasswordCheck::Unusable));

    for hasher in hashers.hashers() {
        let algorithm = hasher.algorithm().unwrap();
        let encoded = hashers.make_password_with(algorithm, "secret").unwrap();
        assert_ne!(encoded, hashers.make_password_with(algorithm, "secret").unwrap());
        assert_eq!(hashers.identify_hasher(&encoded), Ok(hasher));
        assert!(encoded.len() <= 128, "the column has 128 characters");
    }
    let encoded = hashers.make_password("secret").unwrap();
    let salt = encoded.split('$').nth(2).unwrap();
    assert_eq!(salt.len(), 22);
    assert!(salt.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

#[test]
fn what_asks_for_too_much_work_is_refused() {
    let hashers = PasswordHashers::default();
    let salt = "oBYJf8pXW1PkZEVMKDuJ9g";
    let hash = "A".repeat(43);
    for (encoded, parameter, limit) in [
        (format!("pbkdf2_sha256$10000001${salt}$x"), "iterations", 10_000_000),
        (format!("pbkdf2_sha1${}${salt}$x", "9".repeat(40)), "iterations", 10_000_000),
        (format!("bcrypt_sha256$$2b$17${}", ".".repeat(53)), "rounds", 16),
        (format!("argon2$argon2id$v=19$m=524289,t=1,p=1${salt}$") + &hash, "memory cost", 524_288),
        (format!("argon2$argon2id$v=19$m=1024,t=4097,p=1${salt}$") + &hash, "work", 4_194_304),
        (
            format!("argon2$argon2id$v=19$m=4294967295,t=4294967295,p=1${salt}$") + &hash,
            "memory cost",
            524_288,
        ),
        (format!("scrypt$16384${salt}$8$129$x"), "work", 16_777_216),
        (format!("scrypt$65536${salt}$8$1$x"), "memory", 32 << 20),
        (format!("scrypt${0}${salt}${0}${0}$x", u64::MAX), "work", 16_777_216),
        (format!("pbkdf2_sha256$1${}$x", "s".repeat(1100)), "length", 1024),
    ] {
        let refused = HasherError::LimitExceeded { parameter, limit };
        assert_eq!(hashers.check_password("secret", &encoded), Err(refused), "{encoded}");
    }

    // What the settings say is no work too much, and limits can be set.
    let own = PasswordHashers::new([PasswordHasher::Pbkdf2Sha256(Pbkdf2::new(30))]).unwrap();
    let mut limits = *own.limits();
    (limits.pbkdf2_iterations, limits.password_length) = (20, 6);
    let own = own.with_limits(limits);
    let encoded = own.make_password("secret").unwrap();
    assert!(own.check_password("secret", &encoded).unwrap().is_match());
    let encoded = encoded.replace("$30$", "$31$");
    let refused = HasherError::LimitExceeded { parameter: "iterations", limit: 30 };
    assert_eq!(own.check_password("secret", &encoded), Err(refused));
    let refused = HasherError::PasswordTooLong { limit: 6 };
    assert_eq!(own.check_password("secrets", &encoded), Err(refused.clone()));
    assert_eq!(own.make_password("secrets"), Err(refused.clone()));
    assert_eq!(own.harden_unknown_user("secrets"), Err(refused));
    assert_eq!(own.harden_unknown_user("secret"), Ok(()));
}

#[test]
fn a_name_that_is_not_there_takes_what_one_that_is_takes() {
    let mut bcrypt = Bcrypt::default();
    bcrypt.rounds = 4;
    let hashers = PasswordHashers::new([PasswordHasher::Bcrypt(bcrypt)]).unwrap();
    let encoded = hashers.make_password("secret").unwrap();
    let long = "x".repeat(73);
    // bcrypt refuses it, and then another one is hashed in both cases.
    let refused = HasherError::PasswordTooLong { limit: 72 };
    assert_eq!(hashers.check_password(&long, &encoded), Err(refused));
    assert_eq!(hashers.harden_unknown_user(&long), Ok(()));
}

#[test]
fn a_class_of_the_site_s_own_is_an_error_only_where_it_would_run() {
    let path = "site.hashers.Own";
    let custom = |algorithm: Option<&str>| {
        PasswordHasher::Custom(CustomHasher::new(path, algorithm.map(str::to_owned)))
    };
    let unsupported = HasherError::Unsupported { hasher: path.to_owned() };
    let md5 = PasswordHasher::Md5(Salted::default());

    let first = PasswordHashers::new([custom(Some("own")), md5.clone()]).unwrap();
    let encoded = first.make_password_with("md5", "secret").unwrap();
    let check = first.check_password("secret", &encoded);
    assert_eq!(check, Ok(PasswordCheck::Match { must_update: true }));
    assert_eq!(first.check_password("secret", "own$1"), Err(unsupported.clone()));
    assert_eq!(first.check_password("secret", "x$1"), Ok(PasswordCheck::UnknownAlgorithm));
    assert_eq!(first.make_password("secret"), Err(unsupported.clone()));
    assert_eq!(first.harden_unknown_user("secret"), Ok(()));

    // Its algorithm is not known: it may be any that is not known otherwise.
    let last = PasswordHashers::new([md5, custom(None)]).unwrap();
    let check = last.check_password("secret", &encoded);
    assert_eq!(check, Ok(PasswordCheck::Match { must_update: false }));
    assert_eq!(last.check_password("secret", "x$1"), Err(unsupported));
    assert_eq!(PasswordHashers::new([]), Err(HasherError::NoHasher));
}

#[test]
fn old_algorithms_are_read_where_they_are_listed_and_never_written() {
    let listed = r#"{"DJANGO_VERSION": "4.2", "PASSWORD_HASHERS": [
        "django.contrib.auth.hashers.UnsaltedMD5PasswordHasher",
        "django.contrib.auth.hashers.UnsaltedSHA1PasswordHasher",
        "django.contrib.auth.hashers.SHA1PasswordHasher"]}"#;
    let hashers = PasswordHashers::from_json(listed).unwrap();
    let encoded = "5ebe2294ecd0e0f08eab7690d2a6ee69";
    let check = hashers.check_password("secret", encoded);
    assert_eq!(check, Ok(PasswordCheck::Match { must_update: false }));
    let check = PasswordHashers::default().check_password("secret", encoded);
    assert_eq!(check, Ok(PasswordCheck::UnknownAlgorithm));
    for hasher in hashers.hashers() {
        let algorithm = hasher.algorithm().unwrap();
        let made = hashers.make_password_with(algorithm, "secret");
        assert!(matches!(made, Err(HasherError::ReadOnly { .. })), "{algorithm}");
    }
}

#[test]
fn settings_that_say_nothing_clear_are_refused() {
    let class = "django.contrib.auth.hashers.PBKDF2PasswordHasher";
    let list = json!([class]);
    for settings in [
        json!([]),
        json!({"PASSWORD_HASHERS": []}),
        json!({"PASSWORD_HASHERS": class}),
        json!({"PASSWORD_HASHERS": [1]}),
        json!({"DJANGO_VERSION": 5.2}),
        json!({"DJANGO_VERSION": "newest"}),
        json!({"DJANGO_VERSION": "3.2"}),
        json!({"DJANGO_VERSION": "7.2", "PASSWORD_HASHERS": list}),
        json!({"PASSWORD_HASHERS": list, "PASSWORD_HASHERS_PARAMETERS": []}),
        json!({"PASSWORD_HASHERS": list, "PASSWORD_HASHERS_PARAMETERS": {class: 1}}),
        json!({"PASSWORD_HASHERS": list, "PASSWORD_HASHERS_PARAMETERS":
            {class: {"class": class, "iterations": 0}}}),
        json!({"PASSWORD_HASHERS": list, "PASSWORD_HASHERS_PARAMETERS":
            {class: {"class": class, "iterations": "many"}}}),
    ] {
        assert!(PasswordHashers::from_json(&settings.to_string()).is_err(), "{settings}");
    }
    let parameters = json!({class: {"class": class, "iterations": 5, "salt_entropy": 64}});
    let settings = json!({
        "DJANGO_VERSION": "7.2",
        "PASSWORD_HASHERS": list,
        "PASSWORD_HASHERS_PARAMETERS": parameters,
    });
    let hashers = PasswordHashers::from_json(&settings.to_string()).unwrap();
    let [PasswordHasher::Pbkdf2Sha256(found)] = hashers.hashers() else { panic!("{hashers:?}") };
    assert_eq!((found.iterations, found.salt_entropy), (5, 64));
    assert_eq!(PasswordHashers::from_json("{}").unwrap(), PasswordHashers::default());
}

#[test]
fn no_error_shows_a_password_or_a_hash() {
    let hashers = PasswordHashers::default();
    for encoded in ["pbkdf2_sha256$hidden$hidden$hidden", "argon2$hidden", "bcrypt_sha256$$hidden"]
    {
        let error = hashers.check_password("hunter2", encoded).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hidden") && !shown.contains("hunter2"), "{shown}");
    }
}
