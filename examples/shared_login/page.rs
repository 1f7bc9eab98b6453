//! The page: the same markup as the Django templates in `site/shop/templates/shop/`.

use std::fmt::{self, Display, Formatter};

use crate::{Cart, Product};

pub(crate) struct Page<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) catalogue: &'a [Product],
    pub(crate) cart: &'a Cart,
    /// Host and port as the browser named them.
    pub(crate) host: &'a str,
    pub(crate) django_port: u16,
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let name = self.host.split_once(':').map_or(self.host, |(name, _)| name);
        let django = format!("http://{name}:{}/", self.django_port);
        let django = Escaped(&django);
        let count = Count(&lines);
        let account = Account { username: self.username, django, host: Escaped(self.host) };
        let hello = Hello(self.username);
        let products = Each(self.catalogue);
        let cart = Panel(&lines);
        write!(
            f,
            r##"<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Two Kettles · Rust</title>
  <link rel="icon" href="/static/mark.svg">
  <link rel="stylesheet" href="/static/shop.css">
</head>
<body class="rust">
  <a class="skip" href="#main">Skip to content</a>
  <header class="bar">
    <a class="brand" href="/"><img src="/static/mark.svg" alt="">Two Kettles</a>
    <nav class="servers" aria-label="Server">
      <a href="{django}">Django</a>
      <a href="/" aria-current="true">Rust</a>
    </nav>
    <div class="account">
      {count}{account}
    </div>
  </header>
  <main id="main">
<section class="intro">
  <div>
    <p class="rendered">Rendered by Rust (axum)</p>
    <h1>One login, two languages</h1>
    <p class="lead">
      {hello}
      Rust made this page from the session your cookie names. The Django server reads and writes
      that same session: change the cart here, and it has changed there.
    </p>
    <a class="button" href="{django}">Open this cart in Django</a>
  </div>
  <div class="pour" aria-hidden="true">
    <div class="django"><svg><use href="/static/art.svg#kettle"/></svg>Django</div>
    <div><svg><use href="/static/art.svg#teapot"/></svg>your session</div>
    <div class="rust"><svg><use href="/static/art.svg#kettle"/></svg>Rust</div>
  </div>
</section>
<div class="shop">
  <section aria-labelledby="shelf">
    <h2 id="shelf">On the shelf</h2>
    <ul class="shelf">
{products}    </ul>
  </section>
  <section class="cart panel" aria-labelledby="cart">
{cart}  </section>
</div>
  </main>
  <footer class="foot">
    <dl class="facts">
      <div><dt>This page</dt><dd>Rust, axum</dd></div>
      <div><dt>Session read and written by</dt><dd><code>django_session::SessionLayer</code></dd></div>
      <div><dt>Session kept in</dt><dd>table <code>django_session</code>, for both servers</dd></div>
    </dl>
  </footer>
</body>
</html>
"##
        )
    }
}

impl<'a> Page<'a> {
    /// The cart as it is shown: what the catalogue no longer lists is left out.
    fn lines(&self) -> Vec<Line<'a>> {
        let product = |sku: &str| self.catalogue.iter().find(|product| product.sku == sku);
        let line = |(sku, &quantity): (&String, _)| Some(Line { product: product(sku)?, quantity });
        self.cart.iter().filter_map(line).collect()
    }
}

/// In the header: how full the cart is, and the way to it.
struct Count<'a>(&'a [Line<'a>]);

impl Display for Count<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match items(self.0) {
            0 => Ok(()),
            count => write!(f, r##"<a class="to-cart" href="#cart">Cart ({count})</a>"##),
        }
    }
}

/// In the header: who is logged in, and the way out or in.
struct Account<'a> {
    username: Option<&'a str>,
    django: Escaped<'a>,
    host: Escaped<'a>,
}

impl Display for Account<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { username, django, host } = self;
        if let Some(username) = username.map(Escaped) {
            write!(
                f,
                r#"<span>Logged in as <b id="who">{username}</b></span>
      <form method="post" action="/logout"><button class="button quiet">Log out</button></form>"#
            )
        } else {
            // The password is Django's business; it sends its visitor back here.
            write!(
                f,
                r#"<span id="who">Not logged in</span>
      <a class="button quiet" href="{django}login?next=http://{host}/">Log in</a>"#
            )
        }
    }
}

struct Hello<'a>(Option<&'a str>);

impl Display for Hello<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.map(Escaped) {
            Some(username) => write!(f, "Hello, <strong>{username}</strong>."),
            None => f.write_str("Nobody is logged in."),
        }
    }
}

struct Panel<'a>(&'a [Line<'a>]);

impl Display for Panel<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lines = Each(self.0);
        let total = Euros(self.0.iter().map(Line::cents).sum());
        let count = items(self.0);
        let plural = if count == 1 { "" } else { "s" };
        if count == 0 {
            f.write_str(
                r#"    <header><h2 id="cart">Your cart</h2></header>
    <p class="nothing">Nothing in it yet. Add something here or on the Django server.</p>
"#,
            )
        } else {
            write!(
                f,
                r#"    <header>
      <h2 id="cart">Your cart</h2>
      <span class="count">{count} item{plural}</span>
    </header>
    <ul class="lines">
{lines}    </ul>
    <p class="total"><span>Total</span><span>{total}</span></p>
    <form method="post" action="/cart/empty"><button class="button quiet">Empty the cart</button></form>
"#
            )
        }
    }
}

fn items(lines: &[Line<'_>]) -> u32 {
    lines.iter().map(|line| line.quantity).fold(0, u32::saturating_add)
}

/// One after the other.
struct Each<'a, T>(&'a [T]);

impl<T: Display> Display for Each<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| item.fmt(f))
    }
}

impl Display for Product {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [sku, name, note, tint] =
            [&self.sku, &self.name, &self.note, &self.tint].map(|text| Escaped(text));
        let price = Euros(self.cents);
        write!(
            f,
            r#"      <li class="product {tint}">
        <svg class="art" aria-hidden="true"><use href="/static/art.svg#{sku}"/></svg>
        <h3>{name}</h3>
        <p class="note">{note}</p>
        <div class="buy">
          <span class="price">{price}</span>
          <form method="post" action="/cart/add"><input type="hidden" name="sku" value="{sku}"><button class="button" aria-label="Add to cart: {name}">Add</button></form>
        </div>
      </li>
"#
        )
    }
}

struct Line<'a> {
    product: &'a Product,
    quantity: u32,
}

impl Line<'_> {
    fn cents(&self) -> u64 {
        self.product.cents * u64::from(self.quantity)
    }
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Product { sku, name, tint, .. } = self.product;
        let [sku, name, tint] = [sku, name, tint].map(|text| Escaped(text));
        let (quantity, price) = (self.quantity, Euros(self.cents()));
        write!(
            f,
            r#"      <li class="line {tint}" data-sku="{sku}" data-quantity="{quantity}">
        <svg class="art" aria-hidden="true"><use href="/static/art.svg#{sku}"/></svg>
        <div class="what">{name}<span class="price">{price}</span></div>
        <div class="stepper">
          <form method="post" action="/cart/take"><input type="hidden" name="sku" value="{sku}"><button aria-label="One fewer: {name}">−</button></form>
          <output aria-label="Quantity">{quantity}</output>
          <form method="post" action="/cart/add"><input type="hidden" name="sku" value="{sku}"><button aria-label="One more: {name}">+</button></form>
        </div>
      </li>
"#
        )
    }
}

struct Euros(u64);

impl Display for Euros {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "€{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Text made harmless in HTML, between tags and inside quoted attributes alike.
#[derive(Clone, Copy)]
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#x27;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}
