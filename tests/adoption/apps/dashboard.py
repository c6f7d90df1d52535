"""Dash: the page, its layout, and a callback."""

from dash import Dash, Input, Output, dcc, html

dash = Dash(__name__)
dash.layout = html.Div([dcc.Input(id="name", value="shop"), html.Div(id="hello")])


@dash.callback(Output("hello", "children"), Input("name", "value"))
def hello(name):
    return f"hello {name}"


app = dash.server
