"""The forms of accounts, and what counts as an address and a password."""

from flask_wtf import FlaskForm
from wtforms import EmailField, PasswordField, StringField
from wtforms.validators import DataRequired, Email, InputRequired, Length, Regexp

PASSWORD_SHORTEST = 10
PASSWORD_LONGEST = 200  # hashing gets slower with the length; nobody needs to make it hash a novel
EMAIL_LONGEST = 254


def lower(value: str | None) -> str | None:
    return value.strip().lower() if value else value


# PostgreSQL can't store NUL, and nobody types the others on purpose.
printable = Regexp(r"[^\x00-\x1f\x7f]*\Z", message="Please leave out control characters.")


def new_password_field() -> PasswordField:
    return PasswordField(
        "Password",
        [
            InputRequired("Please choose a password."),
            Length(
                PASSWORD_SHORTEST,
                PASSWORD_LONGEST,
                f"A password has {PASSWORD_SHORTEST} to {PASSWORD_LONGEST} characters.",
            ),
            printable,
        ],
        description=f"{PASSWORD_SHORTEST} characters or more. A few random words are easy to remember.",
        render_kw={"autocomplete": "new-password", "minlength": PASSWORD_SHORTEST, "maxlength": PASSWORD_LONGEST},
    )


def email_field(*validators: object) -> EmailField:
    return EmailField(
        "E-mail address",
        [
            DataRequired("Please enter your e-mail address."),
            Length(max=EMAIL_LONGEST, message=f"An address has at most {EMAIL_LONGEST} characters."),
            printable,
            *validators,
        ],
        filters=[lower],
        render_kw={"autocomplete": "username", "maxlength": EMAIL_LONGEST, "autocapitalize": "none"},
    )


def is_email() -> Email:
    # Plain ASCII before the @: not every mail server on the way to the user handles more.
    return Email("This does not look like an e-mail address.", allow_smtputf8=False)


class SignUpForm(FlaskForm):
    email = email_field(is_email())
    password = new_password_field()


class SignInForm(FlaskForm):
    email = email_field()
    password = PasswordField(
        "Password",
        [InputRequired("Please enter your password."), Length(max=PASSWORD_LONGEST), printable],
        render_kw={"autocomplete": "current-password", "maxlength": PASSWORD_LONGEST},
    )


class ResetRequestForm(FlaskForm):
    email = email_field(is_email())


class NewPasswordForm(FlaskForm):
    password = new_password_field()


class TokenForm(FlaskForm):
    name = StringField(
        "Name",
        [
            DataRequired("Please give the token a name."),
            Length(max=80, message="A name has at most 80 characters."),
            printable,
        ],
        filters=[lambda value: value.strip() if value else value],
        description="Where it will be used, such as “laptop” or “nightly report”.",
        render_kw={"autocomplete": "off", "maxlength": 80},
    )
