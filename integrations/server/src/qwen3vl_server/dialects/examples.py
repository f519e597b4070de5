"""What the examples of the interface's description show."""

EXAMPLE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGklEQVR42mO8IyfHQApg"
    "YiARjGoY1TB0NAAAjEsBOPY5fDQAAAAASUVORK5CYII="
)
"""A red square of 16 x 16 pixels, as a data URI."""
