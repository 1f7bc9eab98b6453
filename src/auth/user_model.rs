//! `AUTH_USER_MODEL`: the tables and columns in which users, groups and permissions are.

use super::primary_key::PrimaryKeyType;

/// The tables of the user model; at first those of `django.contrib.auth.models.User`.
///
/// Fields that a model does not have are `None`.
///
/// # Example
///
/// ```
/// use django_session::auth::{PrimaryKeyType, UserModel};
///
/// let mut model = UserModel::default();
/// assert_eq!(model.table, "auth_user");
/// // class Customer(AbstractUser): id = models.UUIDField(primary_key=True)
/// model.table = "shop_customer".into();
/// model.primary_key_type = PrimaryKeyType::Uuid;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserModel {
    /// The table.
    pub table: String,
    /// The column of the primary key.
    pub primary_key: String,
    /// What it is.
    pub primary_key_type: PrimaryKeyType,
    /// The column of `USERNAME_FIELD`.
    pub username: String,
    /// The column of the password; without, sessions have no auth hash, and a changed password ends none.
    pub password: Option<String>,
    /// The column of `is_active`; without, everybody is.
    pub is_active: Option<String>,
    /// The column of `is_staff`; without, nobody is.
    pub is_staff: Option<String>,
    /// The column of `is_superuser`; without, nobody is.
    pub is_superuser: Option<String>,
    /// The column of `last_login`.
    pub last_login: Option<String>,
    /// Where permissions are; without, users have none.
    pub permissions: Option<PermissionTables>,
}

impl Default for UserModel {
    fn default() -> Self {
        let some = |name: &str| Some(name.to_owned());
        Self {
            table: "auth_user".into(),
            primary_key: "id".into(),
            primary_key_type: PrimaryKeyType::INTEGER,
            username: "username".into(),
            password: some("password"),
            is_active: some("is_active"),
            is_staff: some("is_staff"),
            is_superuser: some("is_superuser"),
            last_login: some("last_login"),
            permissions: Some(PermissionTables::default()),
        }
    }
}

/// The tables that lead from a user to its permissions: `PermissionsMixin`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PermissionTables {
    /// The table between users and groups.
    pub user_groups: String,
    /// Its column of the user.
    pub user_groups_user: String,
    /// The table between users and permissions.
    pub user_permissions: String,
    /// Its column of the user.
    pub user_permissions_user: String,
}

impl Default for PermissionTables {
    fn default() -> Self {
        Self {
            user_groups: "auth_user_groups".into(),
            user_groups_user: "user_id".into(),
            user_permissions: "auth_user_user_permissions".into(),
            user_permissions_user: "user_id".into(),
        }
    }
}
