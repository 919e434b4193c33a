"""Column names, each spelled once, and the aliases that other projects' files use for them."""

from __future__ import annotations


class Columns:
    """The names of the columns in every table of the project."""

    USER_ID = "user_id"
    ITEM_ID = "item_id"
    TIMESTAMP = "timestamp"
    EVENT_TYPE = "event_type"
    VALUE = "value"
    EVENT_ID = "event_id"
    REQUEST_ID = "request_id"
    SESSION_ID = "session_id"
    POSITION = "position"
    PROPENSITY = "propensity"
    CONTEXT = "context"
    SEQ = "seq"

    TITLE = "title"
    TEXT = "text"
    CATEGORIES = "categories"
    IMAGE = "image"
    AUDIO = "audio"
    PRICE = "price"
    CREATED_AT = "created_at"
    HIDDEN = "hidden"

    HEAD = "head"
    RELATION = "relation"
    TAIL = "tail"
    WEIGHT = "weight"

    SCORE = "score"
    RANK = "rank"
    COLD = "cold"


EVENT_COLUMNS: tuple[str, ...] = (
    Columns.EVENT_ID,
    Columns.USER_ID,
    Columns.ITEM_ID,
    Columns.TIMESTAMP,
    Columns.EVENT_TYPE,
    Columns.VALUE,
    Columns.REQUEST_ID,
    Columns.SESSION_ID,
    Columns.POSITION,
    Columns.PROPENSITY,
    Columns.CONTEXT,
)
ITEM_COLUMNS: tuple[str, ...] = (
    Columns.ITEM_ID,
    Columns.TITLE,
    Columns.TEXT,
    Columns.CATEGORIES,
    Columns.IMAGE,
    Columns.AUDIO,
    Columns.PRICE,
    Columns.CREATED_AT,
    Columns.HIDDEN,
)
EDGE_COLUMNS: tuple[str, ...] = (Columns.HEAD, Columns.RELATION, Columns.TAIL, Columns.WEIGHT)

DEFAULT_EVENT_TYPE = "event"

# Keys are compared after lower-casing and dropping everything but letters and digits.
# Sources: MovieLens, RecTools, RePlay, RecBole, recommenders, Amazon Personalize and reviews, gorse,
# Retailrocket, Yoochoose.
EVENT_ALIASES: dict[str, str] = {
    "userid": Columns.USER_ID, "user": Columns.USER_ID, "uid": Columns.USER_ID, "visitorid": Columns.USER_ID,
    "customerid": Columns.USER_ID, "reviewerid": Columns.USER_ID, "queryid": Columns.USER_ID,
    "itemid": Columns.ITEM_ID, "item": Columns.ITEM_ID, "iid": Columns.ITEM_ID, "movieid": Columns.ITEM_ID,
    "productid": Columns.ITEM_ID, "asin": Columns.ITEM_ID, "parentasin": Columns.ITEM_ID,
    "articleid": Columns.ITEM_ID, "newsid": Columns.ITEM_ID, "trackid": Columns.ITEM_ID,
    "timestamp": Columns.TIMESTAMP, "ts": Columns.TIMESTAMP, "time": Columns.TIMESTAMP, "datetime": Columns.TIMESTAMP,
    "date": Columns.TIMESTAMP, "unixreviewtime": Columns.TIMESTAMP, "createdat": Columns.TIMESTAMP,
    "eventtime": Columns.TIMESTAMP, "sentat": Columns.TIMESTAMP,
    "eventtype": Columns.EVENT_TYPE, "event": Columns.EVENT_TYPE, "type": Columns.EVENT_TYPE,
    "feedbacktype": Columns.EVENT_TYPE, "behavior": Columns.EVENT_TYPE, "behaviour": Columns.EVENT_TYPE,
    "action": Columns.EVENT_TYPE,
    "value": Columns.VALUE, "eventvalue": Columns.VALUE, "rating": Columns.VALUE, "weight": Columns.VALUE,
    "overall": Columns.VALUE, "score": Columns.VALUE, "plays": Columns.VALUE,
    "eventid": Columns.EVENT_ID, "requestid": Columns.REQUEST_ID, "recommendationid": Columns.REQUEST_ID,
    "sessionid": Columns.SESSION_ID, "position": Columns.POSITION, "propensity": Columns.PROPENSITY,
    "pscore": Columns.PROPENSITY, "context": Columns.CONTEXT,
}  # fmt: skip
ITEM_ALIASES: dict[str, str] = {
    **{key: name for key, name in EVENT_ALIASES.items() if name == Columns.ITEM_ID}, "id": Columns.ITEM_ID,
    "title": Columns.TITLE, "name": Columns.TITLE, "movietitle": Columns.TITLE, "itemname": Columns.TITLE,
    "text": Columns.TEXT, "description": Columns.TEXT, "abstract": Columns.TEXT, "body": Columns.TEXT,
    "comment": Columns.TEXT,
    "categories": Columns.CATEGORIES, "category": Columns.CATEGORIES, "genres": Columns.CATEGORIES,
    "genre": Columns.CATEGORIES, "class": Columns.CATEGORIES, "tags": Columns.CATEGORIES,
    "labels": Columns.CATEGORIES,
    "image": Columns.IMAGE, "imageurl": Columns.IMAGE, "imurl": Columns.IMAGE, "imagepath": Columns.IMAGE,
    "imagefile": Columns.IMAGE, "picture": Columns.IMAGE, "pictureurl": Columns.IMAGE,
    "audio": Columns.AUDIO, "audiourl": Columns.AUDIO, "audiopath": Columns.AUDIO, "audiofile": Columns.AUDIO,
    "price": Columns.PRICE, "createdat": Columns.CREATED_AT, "creationtimestamp": Columns.CREATED_AT,
    "hidden": Columns.HIDDEN, "ishidden": Columns.HIDDEN,
}  # fmt: skip
USER_ALIASES: dict[str, str] = {
    **{key: name for key, name in EVENT_ALIASES.items() if name == Columns.USER_ID}, "id": Columns.USER_ID,
}  # fmt: skip
EDGE_ALIASES: dict[str, str] = {
    "head": Columns.HEAD, "headid": Columns.HEAD, "source": Columns.HEAD, "subject": Columns.HEAD,
    "relation": Columns.RELATION, "relationid": Columns.RELATION, "predicate": Columns.RELATION,
    "tail": Columns.TAIL, "tailid": Columns.TAIL, "target": Columns.TAIL, "object": Columns.TAIL,
    "weight": Columns.WEIGHT,
}  # fmt: skip


def alias_key(name: str) -> str:
    """The form in which a file's column name is looked up in an alias table: lower case, letters and digits only.

    RecBole's typed headers lose their type first: `user_id:token` gives `userid`.
    """
    return "".join(letter for letter in name.split(":", 1)[0].lower() if letter.isalnum())
