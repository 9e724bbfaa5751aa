//! What people type about people, roles, tokens and their own sessions.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use model::{
    access::Permission,
    id::{ApiTokenId, LoginSessionId, OneTimeTokenId, RoleBindingId},
};

use super::Shown;
use crate::parse;

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordFrom {
    /// File whose first line is the password, or '-' for stdin [default: asked for on the terminal]
    #[arg(long, value_name = "FILE|-")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Name of the administrator
    #[arg(long, value_name = "NAME", default_value = "administrator", value_parser = parse::user)]
    pub(crate) user: String,
    /// Name of the first organization [default: main]
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) organization: Option<String>,
    #[command(flatten)]
    pub(crate) password: PasswordFrom,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Log in with the password of this person, instead of an API token
    #[arg(long, value_name = "NAME", value_parser = parse::user)]
    pub(crate) user: Option<String>,
    /// Log in by this OpenID provider of the controller's, in a browser on this machine
    #[arg(long, value_name = "NAME", conflicts_with = "user", value_parser = parse::slug)]
    pub(crate) provider: Option<String>,
    /// With --provider: only show the address, start no browser
    #[arg(long, requires = "provider")]
    pub(crate) no_browser: bool,
    /// Organization to work in [default: the first one of the person by name]
    #[arg(long, value_name = "NAME", requires = "user", value_parser = parse::slug)]
    pub(crate) organization: Option<String>,
    /// File whose first line is the password, or '-' for stdin [default: asked for on the terminal]
    #[arg(long, value_name = "FILE|-", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
    /// Code of the second factor, or a recovery code [default: asked for where it is needed]
    #[arg(long, requires = "user")]
    pub(crate) code: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// Name to have; who has one in this installation already keeps it and gives the password of it
    #[arg(long, value_name = "NAME", value_parser = parse::user)]
    pub(crate) user: String,
    #[command(flatten)]
    pub(crate) password: PasswordFrom,
    /// Code of the second factor, of who has one already
    #[arg(long)]
    pub(crate) code: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Say whether something is allowed and why; exit code 4 if it is not
    CanI(Question),
    /// Show which roles allow something and which do not, and why
    Why(Question),
    /// Show whose credential is used, and what it allows
    Whoami(Shown),
    /// List one's own sessions
    Sessions(Shown),
    /// End one of one's own sessions
    EndSession {
        #[arg(value_name = "SESSION_ID")]
        id: LoginSessionId,
    },
    /// Choose another password; all other sessions end
    Password {
        /// File with two lines, the old password and the new one, or '-' for stdin [default: asked for on the terminal]
        #[arg(long, value_name = "FILE|-")]
        password_file: Option<PathBuf>,
    },
    /// A second factor: one-time codes of an authenticator
    #[command(subcommand)]
    Totp(TotpCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Question {
    /// As execution.create
    #[arg(value_parser = parse::permission)]
    pub(crate) permission: Permission,
    /// On this host
    #[arg(long, value_name = "NAME", value_parser = super::agent_name)]
    pub(crate) host: Option<String>,
    /// May somebody else? A person's name, or service/NAME
    #[arg(long = "as", value_name = "USER")]
    pub(crate) somebody: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TotpCommand {
    /// Show the secret for an authenticator; it counts once a code of it is confirmed
    Start(Shown),
    /// Make the second factor count, and show the recovery codes
    Confirm {
        code: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Log in without a second factor from now on
    Remove {
        #[command(flatten)]
        password: PasswordFrom,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List the people of the organization
    List(Shown),
    /// Show one person
    Show {
        #[command(flatten)]
        user: OneUser,
        #[command(flatten)]
        shown: Shown,
    },
    /// End somebody's membership, with roles, groups, tokens and sessions in this organization
    Remove(OneUser),
    /// Make a token with which one person joins
    Invite {
        /// Role that the new member gets at once, for all hosts [default: none]
        #[arg(long, value_name = "ROLE", value_parser = parse::slug)]
        role: Option<String>,
        /// How long it may be used [default: 3d]
        #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true)]
        ttl: Option<i64>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Make a token with which somebody chooses a new password
    ResetPassword {
        #[command(flatten)]
        user: OneUser,
        #[command(flatten)]
        shown: Shown,
    },
    /// Say who somebody is at a login provider: that login is this person from now on
    Link {
        #[command(flatten)]
        user: OneUser,
        /// The login provider
        #[arg(long, value_name = "NAME", value_parser = parse::slug)]
        provider: String,
        /// Whom the provider means, its 'sub': 'opsctl audit list --verb session.create' shows it for a login that was refused
        #[arg(long)]
        subject: String,
    },
    /// Forget who somebody is at a login provider, and end the sessions
    Unlink {
        #[command(flatten)]
        user: OneUser,
        /// The login provider
        #[arg(long, value_name = "NAME", value_parser = parse::slug)]
        provider: String,
    },
    /// Take the second factor of somebody away who has lost it
    RemoveSecondFactor(OneUser),
    /// Let somebody try again who was locked out by wrong passwords
    Unlock(OneUser),
    /// Keep somebody out of the whole installation
    Disable(OneUser),
    /// Let somebody in again
    Enable(OneUser),
    /// List somebody's sessions in this organization
    Sessions {
        #[command(flatten)]
        user: OneUser,
        #[command(flatten)]
        shown: Shown,
    },
    /// End all of somebody's sessions in this organization
    EndSessions(OneUser),
}

#[derive(Debug, Args)]
pub(crate) struct OneUser {
    /// Name of the person
    #[arg(value_name = "USER", value_parser = parse::user)]
    pub(crate) name: String,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum InvitationCommand {
    /// List invitations, without their secrets
    List(Shown),
    /// Make an invitation worthless
    Delete {
        #[arg(value_name = "INVITATION_ID")]
        id: OneTimeTokenId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups with their members
    List(Shown),
    /// Make a group without members
    Create {
        #[arg(value_parser = parse::slug)]
        name: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete a group, and what its members have through it
    Delete {
        #[arg(value_parser = parse::slug)]
        name: String,
    },
    /// Make somebody a member
    Add(Member),
    /// End somebody's membership
    Remove(Member),
}

#[derive(Debug, Args)]
pub(crate) struct Member {
    #[arg(value_parser = parse::slug)]
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) user: OneUser,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// List roles with their permissions
    List(Shown),
    /// Make a role, or give one other permissions
    Set {
        #[arg(value_parser = parse::slug)]
        name: String,
        /// Permission of the role; may be repeated
        #[arg(long = "permission", value_name = "PERMISSION", required = true, value_delimiter = ',',
            value_parser = parse::permission)]
        permissions: Vec<Permission>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete a role that nobody has
    Delete {
        #[arg(value_parser = parse::slug)]
        name: String,
    },
    /// Give a role to a person, a group or a service account
    Bind(BindArgs),
    /// Take a role away again
    Unbind {
        #[arg(value_name = "BINDING_ID")]
        id: RoleBindingId,
    },
    /// List who has which role, for which hosts and jobs
    Bindings(Shown),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("holder").required(true).args(["user", "group", "service_account"]))]
pub(crate) struct BindArgs {
    #[arg(value_parser = parse::slug)]
    pub(crate) role: String,
    /// Person who gets it
    #[arg(long, value_name = "NAME", value_parser = parse::user)]
    pub(crate) user: Option<String>,
    /// Group whose members get it
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) group: Option<String>,
    /// Service account that gets it
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) service_account: Option<String>,
    /// Only for hosts with these labels, as 'env=staging' [default: all]
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) hosts: Option<String>,
    /// Only for jobs with these labels; commands that belong to no job are not among them [default: all]
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) jobs: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAccountCommand {
    /// List the accounts of programs
    List(Shown),
    /// Make an account of a program, without any role
    Create {
        #[arg(value_parser = parse::slug)]
        name: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete an account of a program, with its tokens and roles
    Delete {
        #[arg(value_parser = parse::slug)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token of one's own, or of a service account
    Create(CreateTokenArgs),
    /// List one's own API tokens, without their secrets
    List {
        /// Everybody's of the organization
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Make an API token worthless
    Revoke {
        #[arg(value_name = "TOKEN_ID")]
        id: ApiTokenId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateTokenArgs {
    /// What it is for
    #[arg(value_parser = parse::slug)]
    pub(crate) name: String,
    /// How long it may be used [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse::seconds, allow_hyphen_values = true)]
    pub(crate) ttl: Option<i64>,
    /// Only this permission of its owner; may be repeated [default: all that the owner has]
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',', value_parser = parse::permission)]
    pub(crate) permissions: Vec<Permission>,
    /// Only for hosts with these labels, as 'env=staging' [default: all that the owner may touch]
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) hosts: Option<String>,
    /// Make it for this service account
    #[arg(long, value_name = "NAME", value_parser = parse::slug)]
    pub(crate) service_account: Option<String>,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrganizationCommand {
    /// List all organizations
    List(Shown),
    /// Make an organization, and be its administrator
    Create {
        #[arg(value_parser = parse::slug)]
        name: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Go on in another organization with this session
    Use {
        #[arg(value_parser = parse::slug)]
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(["opsctl"].into_iter().chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn what_people_type_about_people() {
        for good in [
            "setup",
            "setup --user ada --organization shop --password-file - --token-file t",
            "login",
            "login --user ada --organization shop --password-file - --code 123456 --context work",
            "logout --context work",
            "accept-invitation --user Ada@example.org --password-file p",
            "reset-password --token-file t --password-file p",
            "auth can-i execution.create --host web-1 --as service/ci -o json",
            "auth why agent.read",
            "auth totp confirm 123456",
            "auth totp remove",
            "user invite --role operator --ttl 1d",
            "user end-sessions ada",
            "group add oncall ada",
            "role set restarter --permission execution.create,agent.read --permission self.read",
            "role bind operator --user ada --hosts env=staging",
            "role bind operator --service-account ci --jobs team=shop",
            "token create ci --ttl 30d --permission execution.create --hosts env=staging --service-account ci",
            "token list --all",
            "organization use shop",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, kind) in [
            ("login --code 123456", ErrorKind::MissingRequiredArgument),
            ("login --password-file -", ErrorKind::MissingRequiredArgument),
            ("login --user a/b", ErrorKind::ValueValidation),
            ("auth can-i execution.fly", ErrorKind::ValueValidation),
            ("auth can-i agent.read --host ..", ErrorKind::ValueValidation),
            ("auth end-session 7", ErrorKind::ValueValidation),
            ("user show ..", ErrorKind::ValueValidation),
            ("user invite --ttl -1d", ErrorKind::ValueValidation),
            ("group create On-Call", ErrorKind::ValueValidation),
            ("role set restarter", ErrorKind::MissingRequiredArgument),
            ("role bind operator", ErrorKind::MissingRequiredArgument),
            ("role bind operator --user ada --group oncall", ErrorKind::ArgumentConflict),
            ("role unbind 7", ErrorKind::ValueValidation),
            ("token create ..", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(bad).unwrap_err(), kind, "{bad}");
        }
    }

    #[test]
    fn names_of_people_are_read_in_their_one_form() {
        let Command::User(super::UserCommand::Unlock(user)) = parse("user unlock Ada").unwrap().command
        else {
            panic!("not unlock");
        };
        assert_eq!(user.name, "ada");
    }
}
