def parse(fields):
    return None
