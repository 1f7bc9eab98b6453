//! A service of actix-web beside a Django site: who is logged in there is logged in here, and the other
//! way round.
//!
//! Pages for anybody, for users and for who has a permission, a login page of its own, logging out. With
//! the settings and the database of the site:
//!
//! ```text
//! python manage.py export_session_settings --output settings.json
//! SECRET_KEY=… DATABASE_URL=postgres://user@localhost/shop \
//!     cargo run --example actix --features actix,auth,postgres,sqlite -- settings.json
//! ```
//!
//! `sqlite:db.sqlite3` is a database too. Behind a proxy that ends TLS, `SECURE_PROXY_SSL_HEADER` of the
//! site counts here as well.

use std::net::TcpListener;

use actix_web::http::header::LOCATION;
use actix_web::web::{Form, Html, Query, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, Responder, web};
use django_session::auth::{Auth, AuthError, User};
use django_session::store::SqlUsers;
use django_session::web::{
    AuthLayer, AuthSession, Csrf, MaybeUser, Permission, RequirePermission, SiteSettings,
};
use django_session::{CsrfLayer, SessionLayer, SqlStore};
use serde::Deserialize;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("which settings file?")?;
    let site = SiteSettings::from_file(file)?;
    let store = SqlStore::connect(&std::env::var("DATABASE_URL")?, &site.session).await?;
    serve(site, store, TcpListener::bind("127.0.0.1:3000")?)?.await?;
    Ok(())
}

/// Starts the service.
pub(crate) fn serve(
    mut site: SiteSettings,
    store: SqlStore,
    listener: TcpListener,
) -> Result<actix_web::dev::Server, Box<dyn std::error::Error>> {
    // Without this line Django's own page is where users are sent to log in.
    site.auth.login_url = "/login".to_owned();
    let users = SqlUsers::beside(&store, &site.auth.user_model);
    let users = AuthLayer::new(Auth::new(users, site.auth)).redirecting_to_login();
    let csrf = CsrfLayer::new(site.csrf)?;
    let sessions = SessionLayer::new(store, site.session);
    let server = HttpServer::new(move || {
        // The last one is the first to see a request.
        App::new().configure(routes).wrap(users.clone()).wrap(csrf.clone()).wrap(sessions.clone())
    });
    Ok(server.listen(listener)?.run())
}

fn routes(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(welcome))
        .route("/orders", web::get().to(orders))
        .route("/staff", web::get().to(staff))
        .route("/login", web::get().to(login_page))
        .route("/login", web::post().to(log_in))
        .route("/logout", web::post().to(log_out));
}

/// For everybody.
async fn welcome(MaybeUser(user): MaybeUser, csrf: Csrf) -> impl Responder {
    let form = |action: &str, button: &str| {
        format!(
            "<form method=post action={action}>\
             <input type=hidden name=csrfmiddlewaretoken value={}><button>{button}</button></form>",
            csrf.token(),
        )
    };
    Html::new(match user {
        Some(_) => {
            format!("Welcome back. <a href=/orders>Orders</a>{}", form("/logout", "Log out"))
        }
        None => "Hello. <a href=/login>Log in</a>".to_owned(),
    })
}

/// For who is logged in; others are sent to the login page.
async fn orders(user: User) -> String {
    format!("orders of {}", user.username())
}

struct ViewUsers;

impl Permission for ViewUsers {
    const PERMISSIONS: &'static [&'static str] = &["auth.view_user"];
}

/// For who may see users; others get 403.
async fn staff(user: RequirePermission<ViewUsers>) -> String {
    format!("shown to {}", user.username())
}

async fn login_page(csrf: Csrf) -> impl Responder {
    // A form without `action` is posted to where it came from, `next` included.
    Html::new(format!(
        "<form method=post><input type=hidden name=csrfmiddlewaretoken value={}>\
         <input name=username autocomplete=username>\
         <input name=password type=password autocomplete=current-password>\
         <button>Log in</button></form>",
        csrf.token(),
    ))
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

async fn log_in(
    session: AuthSession,
    form: Form<Login>,
    query: Query<Next>,
) -> Result<HttpResponse, AuthError> {
    let Some(user) = session.authenticate(&form.username, &form.password).await? else {
        return Ok(HttpResponse::Unauthorized().body("This is no user's name and password."));
    };
    session.login(&user).await?;
    Ok(redirect(query.next.as_deref().filter(|next| is_ours(next)).unwrap_or("/")))
}

async fn log_out(session: AuthSession) -> Result<HttpResponse, AuthError> {
    session.logout().await?;
    Ok(redirect("/"))
}

/// Whether it is a path of this site: `//host` and `/\host` lead to others.
fn is_ours(next: &str) -> bool {
    next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && next.bytes().all(|byte| byte.is_ascii_graphic())
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, to)).finish()
}
