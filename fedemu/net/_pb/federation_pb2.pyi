from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("hello", "welcome", "task", "receipt", "update", "answer", "cancel", "abandoned", "goodbye", "ready", "enrolled", "chunk", "vectors")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ABANDONED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    welcome: Welcome
    task: Task
    receipt: Receipt
    update: Update
    answer: Answer
    cancel: Cancel
    abandoned: Abandoned
    goodbye: Goodbye
    ready: Ready
    enrolled: Enrolled
    chunk: bytes
    vectors: _containers.RepeatedCompositeFieldContainer[Vector]
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., abandoned: _Optional[_Union[Abandoned, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., enrolled: _Optional[_Union[Enrolled, _Mapping]] = ..., chunk: _Optional[bytes] = ..., vectors: _Optional[_Iterable[_Union[Vector, _Mapping]]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("name", "size", "length")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    length: int
    def __init__(self, name: _Optional[str] = ..., size: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("round", "turn", "attempt")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    round: int
    turn: int
    attempt: int
    def __init__(self, round: _Optional[int] = ..., turn: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "group", "slot", "token", "host", "kernel")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    group: str
    slot: int
    token: str
    host: str
    kernel: bool
    def __init__(self, protocol: _Optional[int] = ..., group: _Optional[str] = ..., slot: _Optional[int] = ..., token: _Optional[str] = ..., host: _Optional[str] = ..., kernel: _Optional[bool] = ...) -> None: ...

class Enrolled(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("client", "scenario")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    client: str
    scenario: str
    def __init__(self, client: _Optional[str] = ..., scenario: _Optional[str] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Task(_message.Message):
    __slots__ = ("assignment", "version", "reference", "accepted")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    version: int
    reference: Assignment
    accepted: Assignment
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., version: _Optional[int] = ..., reference: _Optional[_Union[Assignment, _Mapping]] = ..., accepted: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("assignment",)
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("assignment", "version", "num_examples", "num_steps", "train_loss", "squared_loss")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    SQUARED_LOSS_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    version: int
    num_examples: int
    num_steps: int
    train_loss: float
    squared_loss: float
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., version: _Optional[int] = ..., num_examples: _Optional[int] = ..., num_steps: _Optional[int] = ..., train_loss: _Optional[float] = ..., squared_loss: _Optional[float] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("assignment", "verdict", "reason")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[Answer.Verdict]
        VERDICT_ACCEPTED: _ClassVar[Answer.Verdict]
        VERDICT_LATE: _ClassVar[Answer.Verdict]
        VERDICT_REFUSED: _ClassVar[Answer.Verdict]
    VERDICT_UNSPECIFIED: Answer.Verdict
    VERDICT_ACCEPTED: Answer.Verdict
    VERDICT_LATE: Answer.Verdict
    VERDICT_REFUSED: Answer.Verdict
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    verdict: Answer.Verdict
    reason: str
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., verdict: _Optional[_Union[Answer.Verdict, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("assignment",)
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Abandoned(_message.Message):
    __slots__ = ("assignment", "reason", "sent")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    reason: str
    sent: int
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., reason: _Optional[str] = ..., sent: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
