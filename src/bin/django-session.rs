//! Shows what is in a Django session; see `django_session::cli`.

fn main() -> std::process::ExitCode {
    django_session::cli::main()
}
