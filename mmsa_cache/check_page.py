def render(a: object, b: object) -> str:
    return ""
