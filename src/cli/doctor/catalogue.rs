//! Every kind of trouble that the doctor knows: its name, why it matters, and what to do.
//!
//! `docs/command.md` has the same names; a test compares.

use super::finding::Kind;

macro_rules! catalogue {
    ($($name:ident: $id:literal, $why:literal, $fix:literal;)*) => {
        $(pub(super) const $name: Kind = Kind { id: $id, why: $why, fix: $fix };)*
        #[cfg(test)]
        pub(super) const ALL: &[Kind] = &[$($name),*];
    };
}

catalogue! {
    // Keys.
    SECRET_KEY_MISSING: "secret-key-missing",
        "Without it no session can be checked, by Django or here",
        "set SECRET_KEY in the environment, give --secret-key-file, or export with --include-secret";
    SECRET_KEY_SHORT: "secret-key-short",
        "Who guesses the key writes sessions and logs in as anybody",
        "make a new key by get_random_secret_key(), keep the old one in SECRET_KEY_FALLBACKS for a while";
    SECRET_KEY_INSECURE: "secret-key-insecure",
        "startproject puts such a key into a file that is likely to be in a repository",
        "make a new key by get_random_secret_key() and keep it out of the repository";
    SECRET_KEY_IN_FALLBACKS: "secret-key-in-fallbacks",
        "It is tried twice for each session that no key fits, and a rotation that seems done is not",
        "remove SECRET_KEY from SECRET_KEY_FALLBACKS";
    FALLBACK_DUPLICATE: "fallback-duplicate",
        "Each fallback is tried for each session that no earlier key fits",
        "leave each key in SECRET_KEY_FALLBACKS once";
    FALLBACK_EMPTY: "fallback-empty",
        "Django takes an empty fallback for SECRET_KEY; somebody meant another key",
        "remove the empty text from SECRET_KEY_FALLBACKS";
    FALLBACK_WEAK: "fallback-weak",
        "A fallback opens sessions as SECRET_KEY does",
        "rotate to strong keys by `django-session rotate`, then remove the weak one";
    FALLBACK_COUNT: "fallback-count",
        "Sessions under the keys that are missing here look forged, though the site reads them",
        "set SECRET_KEY_FALLBACKS to all keys of the site, or export with --include-secret";
    FALLBACK_UNUSED: "fallback-unused",
        "A key that nothing needs any more is one more that can leak",
        "run `django-session rotate`, which renews logins too; once it ends with 0, remove the key";
    UNKNOWN_KEY: "signed-by-unknown-key",
        "Django treats such sessions as empty: their users have been logged out",
        "put the former key into SECRET_KEY_FALLBACKS, and look whether all servers have the same keys";
    SALT_MISMATCH: "salt-mismatch",
        "Another class of sessions wrote them, and the site reads them as empty",
        "export the settings of the site that wrote them, or give --salt";
    SIGNED_IN_FUTURE: "signed-in-the-future",
        "A machine that saves sessions has a wrong clock; signed cookies live longer by as much",
        "set the clocks of all servers by NTP";
    SETTINGS_READABLE: "settings-file-readable",
        "Whoever has an account on the machine can read SECRET_KEY",
        "chmod 600 the file, or export without --include-secret";
    SETTING_INVALID: "setting-invalid",
        "Django, or this program, cannot use the value",
        "correct the setting in the settings module, then export again";
    SETTINGS_INCOMPLETE: "settings-incomplete",
        "What is not there cannot be checked: middleware, apps, caches",
        "run `manage.py export_session_settings` of this version, and give the file by --settings";

    // The cookie.
    COOKIE_NOT_SECURE: "cookie-not-secure",
        "One request by plain HTTP shows the cookie to everybody on the way, who then is the user",
        "SESSION_COOKIE_SECURE = True";
    COOKIE_HTTPONLY_OFF: "cookie-httponly-off",
        "Any script in a page can read the cookie, so one XSS hole takes over logins",
        "SESSION_COOKIE_HTTPONLY = True";
    SAMESITE_NONE: "cookie-samesite-none",
        "Every other site can make requests with the user's session; CSRF protection is all that is left",
        "SESSION_COOKIE_SAMESITE = \"Lax\", unless the site runs in frames of others";
    SAMESITE_NONE_INSECURE: "cookie-samesite-none-insecure",
        "Browsers drop a cookie with SameSite=None and without Secure, so nobody can log in",
        "SESSION_COOKIE_SECURE = True, or SESSION_COOKIE_SAMESITE = \"Lax\"";
    SAMESITE_MISSING: "cookie-samesite-missing",
        "Each browser then decides for itself: some as for Lax, some as for None",
        "SESSION_COOKIE_SAMESITE = \"Lax\"";
    DOMAIN_INVALID: "cookie-domain-invalid",
        "Browsers drop a cookie whose Domain is no name of a host, so nobody can log in",
        "SESSION_COOKIE_DOMAIN = None, or a bare name such as \"example.com\"";
    DOMAIN_DOT: "cookie-domain-leading-dot",
        "The dot means nothing since RFC 6265, and hides that hosts below get the cookie either way",
        "write SESSION_COOKIE_DOMAIN without the dot";
    DOMAIN_PUBLIC: "cookie-domain-public-suffix",
        "Browsers drop cookies for a domain that many share, so nobody can log in",
        "SESSION_COOKIE_DOMAIN = None, or the domain that is the site's own";
    DOMAIN_MISMATCH: "cookie-domain-mismatch",
        "Browsers drop a cookie for a domain that the host is not in, so nobody can log in there",
        "SESSION_COOKIE_DOMAIN = None, or a domain that all of ALLOWED_HOSTS are in";
    COOKIE_PATH: "cookie-path",
        "Only pages below the path get the session; elsewhere the user is a stranger",
        "SESSION_COOKIE_PATH = \"/\", unless several sites share the host";
    COOKIE_NAME_INVALID: "cookie-name-invalid",
        "Browsers drop or misread a cookie whose name has blanks, separators or non-ASCII characters",
        "SESSION_COOKIE_NAME = \"sessionid\", or other letters, digits, - and _";
    COOKIE_NAME_TAKEN: "cookie-name-taken",
        "Two cookies of one name overwrite each other: users are logged out, or forms fail",
        "give SESSION_COOKIE_NAME, CSRF_COOKIE_NAME and LANGUAGE_COOKIE_NAME different values";
    COOKIE_PREFIX: "cookie-prefix",
        "Browsers drop a __Host- or __Secure- cookie that breaks the rules of its name",
        "Secure for both; for __Host- also SESSION_COOKIE_DOMAIN = None and SESSION_COOKIE_PATH = \"/\"";
    COOKIE_AGE: "cookie-age-not-positive",
        "Every session has expired when it is made, so nobody stays logged in",
        "SESSION_COOKIE_AGE = 1209600, or as many seconds as users shall stay";
    COOKIE_AGE_LONG: "cookie-age-long",
        "Browsers keep no cookie longer than 400 days; rows stay behind, and a stolen cookie is good as long",
        "SESSION_COOKIE_AGE of some weeks; SESSION_SAVE_EVERY_REQUEST or a touch interval keeps users in";
    BROWSER_CLOSE_AGE: "browser-close-long-age",
        "The cookie ends with the browser, but the stored session is good for all of SESSION_COOKIE_AGE",
        "a SESSION_COOKIE_AGE of a day or less where SESSION_EXPIRE_AT_BROWSER_CLOSE is on";
    SAVE_EVERY_REQUEST: "save-every-request",
        "Each request writes the session, and more of them meet; that is often most of the database's writes",
        "SESSION_SAVE_EVERY_REQUEST = False with a SESSION_TOUCH_INTERVAL, or leave it if it is wanted";
    DEBUG_ON: "debug-on",
        "Pages of errors show settings and sessions; what matters in production is judged mildly here",
        "DEBUG = False in production, and export the settings there";

    // The engine.
    SERIALIZER_PICKLE: "serializer-pickle",
        "Whoever has SECRET_KEY, or may write the store, runs code on the site's servers",
        "SESSION_SERIALIZER of JSON; `django-session convert` converts what is stored";
    SERIALIZER_GONE: "serializer-gone",
        "Django 5.0 has no PickleSerializer any more: every request with a session fails",
        "SESSION_SERIALIZER = \"django.contrib.sessions.serializers.JSONSerializer\"";
    CACHE_LOCAL: "cache-of-one-process",
        "Each process has a cache of its own: users are logged in or not by chance, and logouts do not count",
        "a cache that all processes share, such as Redis, for SESSION_CACHE_ALIAS";
    CACHE_DUMMY: "cache-dummy",
        "It keeps nothing, so nobody stays logged in, or the cache before the table is for nothing",
        "a real cache for SESSION_CACHE_ALIAS, or the engine db";
    CACHE_MISSING: "cache-missing",
        "The engine asks for a cache that is not in CACHES: every request with a session fails",
        "add SESSION_CACHE_ALIAS to CACHES, or name one that is there";
    CACHE_CULLS: "cache-culls",
        "Beyond MAX_ENTRIES, 300 unless it is set, the cache removes entries whatever they are: users are logged out",
        "OPTIONS = {\"MAX_ENTRIES\": …} beyond any number of sessions, or another cache";
    FILE_PATH_MISSING: "file-path-missing",
        "The file engine cannot save any session",
        "create the directory with mode 0700 for the user of the site, or correct SESSION_FILE_PATH";
    FILE_PATH_READ_ONLY: "file-path-read-only",
        "The file engine cannot save any session",
        "give the directory to the user that the site runs as";
    FILE_PATH_SHARED: "file-path-shared",
        "Other users of the machine can read session keys from the names of files, or put files there",
        "chmod 700 the directory";
    FILE_PATH_TEMPORARY: "file-path-temporary",
        "What cleans the directory, and a restart, log everybody out",
        "SESSION_FILE_PATH of a directory of the site's own";
    SESSION_MIDDLEWARE_MISSING: "session-middleware-missing",
        "request.session is not there: no view, no login and no admin works with it",
        "add \"django.contrib.sessions.middleware.SessionMiddleware\" to MIDDLEWARE";
    SESSION_MIDDLEWARE_TWICE: "session-middleware-twice",
        "Each request loads and saves two sessions, and the changes of one are lost",
        "leave one SessionMiddleware in MIDDLEWARE";
    MIDDLEWARE_ORDER: "middleware-order",
        "What needs request.session runs before it is there: every request fails",
        "put SessionMiddleware before AuthenticationMiddleware and MessageMiddleware";
    AUTH_MIDDLEWARE_MISSING: "auth-middleware-missing",
        "request.user is not there, though the site has users",
        "add \"django.contrib.auth.middleware.AuthenticationMiddleware\" after SessionMiddleware";
    SESSIONS_APP_MISSING: "sessions-app-missing",
        "`migrate` makes no table for the sessions, and there is no clearsessions",
        "add \"django.contrib.sessions\" to INSTALLED_APPS and run `manage.py migrate`";
    ENGINE_STORE: "engine-is-elsewhere",
        "What is looked at here is not where the site keeps its sessions",
        "give the address of the store that SESSION_ENGINE uses";
    SIGNED_COOKIES: "signed-cookies-cannot-be-revoked",
        "Nothing is stored, so a logout leaves copies of the cookie good for SESSION_COOKIE_AGE, and users can read theirs",
        "an engine with a store, if logouts have to count";
    WEAK_FORMAT_ACCEPTED: "weak-format-accepted",
        "Old forms are signed by SHA-1 or MD5; each that is accepted can be forged as easily as it could be then",
        "`django-session convert`, then an empty SESSION_ACCEPT";

    // What is stored.
    STORED_FORMAT: "stored-in-old-format",
        "Django 4.0 and later, and the site with these settings, read such sessions as empty",
        "`django-session convert`, or SESSION_ACCEPT until they have expired";
    STORED_SERIALIZER: "stored-by-other-serializer",
        "The site reads sessions of another serializer as empty, or fails",
        "`django-session convert`";
    UNREADABLE: "stored-unreadable",
        "No Django can read these: they are cut off, damaged or no sessions",
        "look at one by `django-session decode`; MySQL cuts off text that does not fit where it is not strict";
    EXPIRED_SHARE: "expired-share",
        "Rows that nobody reads any more make the table, its index and each backup larger",
        "run `django-session clear-expired` now, and every day";

    // The store.
    STORE_NOT_GIVEN: "store-not-given",
        "Without an address only the settings can be looked at",
        "give --store, --store-file or SESSION_STORE_URL";
    CACHE_NOT_GIVEN: "cache-not-given",
        "The server of the cache is not looked at, and commands that end sessions leave their copies in it",
        "add cache_url to the address of the table, or run `manage.py sessions doctor`";
    STORE_UNREACHABLE: "store-unreachable",
        "Neither the doctor nor, if it has the same address, the site can ask for sessions",
        "look at the server, the network and the address, then run it again";
    CLOCK_SKEW: "clock-skew",
        "Sessions end early or late by as much, and a replica's age cannot be told",
        "set the clocks of both machines by NTP";
    READ_ONLY: "store-read-only",
        "No session can be saved: logins fail",
        "give the address of the server that takes writes, or make it take them";
    TABLE_MISSING: "table-missing",
        "Every request with a session fails",
        "run `manage.py migrate sessions`, or give the table that the site has by ?table=";
    COLUMN_MISSING: "column-missing",
        "Every request with a session fails",
        "run `manage.py migrate sessions`; a table of another shape needs a store of its own";
    COLUMN_TYPE: "column-type",
        "What does not fit is refused, cut off, or compared in the wrong order",
        "alter the column to what `manage.py sqlmigrate sessions 0001` says";
    PRIMARY_KEY_MISSING: "primary-key-missing",
        "Two rows of one session can be there, each request reads the whole table, and no save can tell",
        "remove duplicates, then ALTER TABLE … ADD PRIMARY KEY (session_key)";
    EXPIRY_INDEX_MISSING: "expiry-index-missing",
        "clearsessions reads the whole table each time, and locks it as long on some databases",
        "CREATE INDEX on expire_date (PostgreSQL: CONCURRENTLY)";
    COLLATION: "collation-ignores-case",
        "A session key is found in any spelling, as it is in Django there; Django draws small letters only",
        "ALTER the column session_key to utf8mb4_bin, or leave it";
    CHARSET: "charset-not-utf8mb4",
        "Stored sessions are ASCII and do not care; keys that a client makes up may end in errors",
        "ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4";
    TABLE_ENGINE: "table-engine",
        "Each write locks the whole table, and a crash can lose or damage it",
        "ALTER TABLE … ENGINE = InnoDB";
    NOT_STRICT: "mysql-not-strict",
        "The server cuts off what does not fit, and a session that is cut off is lost",
        "add STRICT_TRANS_TABLES to sql_mode";
    DEAD_ROWS: "table-bloat",
        "Dead rows keep the table large and slow; usually vacuum cannot keep up, or something holds it back",
        "VACUUM the table, and lower autovacuum_vacuum_scale_factor for it";
    AUTOVACUUM_OFF: "autovacuum-off",
        "Each save of a session leaves a dead row, and nothing removes them",
        "switch autovacuum on, for the server and for the table";
    FROZEN_AGE: "transaction-wraparound",
        "At two billion the server stops taking writes, so that nothing is lost",
        "VACUUM (FREEZE) the table, and look what holds autovacuum back";
    LONG_TRANSACTION: "long-transaction",
        "While it is open, no dead row of any table can be removed",
        "find it in pg_stat_activity or innodb_trx, end it, and set idle_in_transaction_session_timeout";
    CONNECTIONS: "connections-scarce",
        "The pool of one process may ask for more connections than the server has to give",
        "lower max_connections in the address, raise that of the server, or put a pooler before it";
    POOLED: "pooler-with-prepared-statements",
        "Another port answers than the one that was asked, so there may be a pooler in between; one before PgBouncer 1.21 in transaction mode loses prepared statements",
        "?statement-cache-capacity=0 in the address, unless it is a mere port mapping or a newer PgBouncer";
    REPLICA_LAG: "replica-lag",
        "Reads from the replica are older than replica_settle allows: a login may seem not to have happened",
        "find what holds the replica up, or raise replica_settle";
    REPLICA_NONE: "replica-is-none",
        "The server at replica_url follows nobody, so it takes no load off the primary and may hold other data",
        "correct replica_url, or remove it";
    JOURNAL_MODE: "sqlite-journal-mode",
        "Without WAL readers and writers wait for each other: \"database is locked\"",
        "PRAGMA journal_mode = WAL, once";
    SQLITE_READABLE: "sqlite-readable",
        "Other users of the machine can read every session key and every password hash",
        "chmod 600 the file of the database";
    SQLITE_NETWORK: "sqlite-on-network",
        "Locks do not work there as SQLite needs them: the database will be damaged",
        "a local disk, or a database server";
    REDIS_EVICTS: "redis-evicts",
        "When memory is full, Redis removes sessions that have not expired: users are logged out",
        "maxmemory-policy noeviction and enough memory, in an instance of the sessions' own";
    REDIS_EVICTED: "redis-has-evicted",
        "Entries have been removed for want of memory, perhaps sessions",
        "more memory, or an instance of the sessions' own";
    REDIS_VOLATILE: "redis-not-persistent",
        "A restart of Redis logs everybody out",
        "appendonly yes, or the engine cached_db, or accept it";
    REDIS_SAVING: "redis-saving-fails",
        "Redis cannot write to its disk; it then refuses writes, and a restart loses what it has",
        "look at the log of Redis: a full disk, permissions, or no memory to fork";
    REDIS_NO_TTL: "redis-keys-without-ttl",
        "Nothing ever removes them, and they fill the memory",
        "look who writes them; EXPIRE them, or remove what nobody needs";
    MEMORY_FULL: "memory-nearly-full",
        "The next sessions push others out, or are refused",
        "more memory, a shorter SESSION_COOKIE_AGE, or an instance of the sessions' own";
    MEMCACHED_EVICTIONS: "memcached-evictions",
        "Sessions have been pushed out before they expired: users are logged out",
        "more memory (-m), a pool of the sessions' own, or the engine cached_db";
    MEMCACHED_ITEM_SIZE: "memcached-item-size",
        "A session that is larger is lost, and Django does not notice",
        "memcached -I 2m, or smaller sessions";
    MEMCACHED_VOLATILE: "memcached-not-persistent",
        "A restart of memcached logs everybody out",
        "the engine cached_db, or accept it";

    // A cookie.
    COOKIE_MALFORMED: "given-cookie-malformed",
        "Django does not take this for a session, and makes a new one",
        "copy the value of the cookie again, whole and alone";
    COOKIE_SESSION_MISSING: "given-cookie-session-missing",
        "There is no such session: a logout, a login, clearsessions, another store, or a cookie of another site",
        "log in again; if it happens often, look whether all servers have the same store";
    COOKIE_SESSION_EXPIRED: "given-cookie-session-expired",
        "The session has come to its end",
        "log in again; SESSION_COOKIE_AGE and SESSION_SAVE_EVERY_REQUEST say how long it lasts";
    COOKIE_SESSION_UNREADABLE: "given-cookie-session-unreadable",
        "Django takes a session that it cannot read for an empty one",
        "put the key that signed it into SECRET_KEY_FALLBACKS, or correct the salt, form or serializer";
    COOKIE_ANONYMOUS: "given-cookie-anonymous",
        "The session is good, and nobody has logged in with it",
        "nothing is wrong, if nobody was to be logged in";
    COOKIE_BACKEND: "given-cookie-backend-not-listed",
        "The backend that let the user in is not in AUTHENTICATION_BACKENDS any more",
        "put the backend back, or let the user log in again";
    COOKIE_USER_MISSING: "given-cookie-user-missing",
        "The user is gone, or is in another database",
        "look whether the database of the users is the site's";
    COOKIE_USER_INACTIVE: "given-cookie-user-inactive",
        "Django lets nobody in whose is_active is off",
        "set is_active, if the user is to come in";
    COOKIE_AUTH_HASH: "given-cookie-auth-hash",
        "The password has changed since the login, or SECRET_KEY without a fallback: Django ends the session",
        "log in again; after a change of the key put the old one into SECRET_KEY_FALLBACKS";
    COOKIE_NOT_TOLD: "given-cookie-user-not-looked-at",
        "The session is good; whether its user still counts cannot be told without the users",
        "give the database with the users by --users or USERS_DATABASE_URL";
    COOKIE_GOOD: "given-cookie-good",
        "Django would let this user in",
        "nothing is wrong";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_fix_of_one_line() {
        let names: BTreeSet<_> = ALL.iter().map(|kind| kind.id).collect();
        assert_eq!(names.len(), ALL.len());
        for kind in ALL {
            assert!(
                kind.id
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
            assert!(!kind.fix.is_empty() && !kind.fix.contains('\n'), "{}", kind.id);
            assert!(!kind.why.is_empty() && !kind.why.ends_with('.'), "{}", kind.id);
        }
    }

    #[test]
    fn the_manual_has_every_kind_and_no_other() {
        let manual = include_str!("../../../docs/command.md");
        let listed: BTreeSet<_> = manual
            .lines()
            .skip_while(|line| !line.starts_with("## `doctor`"))
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(id, _)| id)
            .collect();
        let known: BTreeSet<_> = ALL.iter().map(|kind| kind.id).collect();
        assert_eq!(listed, known);
    }
}
