"""Support tickets of six intents, put together from templates: what a practitioner has to classify."""

import csv
import random

REQUESTS = {
    "billing": [
        "I was charged {n} times for order {k}",
        "my invoice {k} shows the wrong amount",
        "the payment of ${n} was taken twice",
        "please refund the {n} dollars you billed",
        "why is my bill higher this month",
        "the discount is missing on invoice {k}",
    ],
    "log in": [
        "I cannot sign in to my account",
        "the password reset mail never comes",
        "my account {k} is locked after {n} tries",
        "two-factor codes are rejected",
        "it says wrong password but it is right",
        "the sign-in page loops back",
    ],
    "shipping": [
        "where is my parcel {k}",
        "the delivery is {n} days late",
        "tracking number {k} shows nothing",
        "the package went to the wrong address",
        "the box arrived damaged",
        "can you deliver on {n} May instead",
    ],
    "bug report": [
        "the app crashes when I open page {n}",
        "error {k} appears after the update",
        "the export button does nothing",
        "charts are blank since version {n}",
        "the screen freezes on upload",
        "search returns nothing at all",
    ],
    "feature request": [
        "please add a dark mode",
        "it would be great to export to {n} formats",
        "could you support calendar sync",
        "I wish I could sort by date",
        "an option to mute alerts would help",
        "please let us have more than {n} users",
    ],
    "cancellation": [
        "I want to cancel my subscription",
        "please close account {k}",
        "stop the renewal next month",
        "how do I end my plan after {n} months",
        "delete all my data please",
        "I no longer need the service",
    ],
}
GREETINGS = ["Hi, ", "Hello team, ", "", "Good morning, ", "Dear support, ", "urgent: "]
ASIDES = ["", " I am using the web version.", " I have been a customer for years.", " It is quite annoying."]
ENDS = ["", " Thanks.", " Please help.", " Regards, Kim", " This is the {n}th time I write.", " Any news?"]


def tickets(number, seed):
    """`(body, intent)` of this many tickets, each intent with its share, shuffled."""
    draw, rows = random.Random(seed), []
    for i in range(number):
        intent = list(REQUESTS)[i % len(REQUESTS)]
        text = "".join(draw.choice(parts) for parts in (GREETINGS, REQUESTS[intent], ASIDES, ENDS))
        rows.append((text.format(n=draw.randint(2, 40), k=draw.randint(10_000, 99_999)), intent))
    draw.shuffle(rows)
    return rows


def write_tickets(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("body", "intent"), *rows])
    return path
